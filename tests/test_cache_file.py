"""Opening and sharing a cache file; a file that is not ours stays as it is."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cache_records import (
    EXCHANGE,
    SEED_TABLE,
    answer,
    exchange,
    key,
    pragma,
    python,
    raw,
    run_python,
    seed_file,
    task,
)

from lmsyz.cache import SqliteCache
from lmsyz.cache_file import set_journal
from lmsyz.cache_schema import APPLICATION_ID, TABLES_1, VERSION
from lmsyz.errors import CacheError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


@pytest.fixture
def cache(path: Path) -> Iterator[SqliteCache]:
    with SqliteCache(path) as opened:
        yield opened


@pytest.fixture
def archived(path: Path) -> Path:
    """A closed cache file with two answers, ``a`` and ``b``."""
    with SqliteCache(path) as opened:
        opened.put_chunk(opened.task_id(task()), exchange(), [answer("a"), answer("b", "bad")])
    return path


# --- opening ----------------------------------------------------------------------------------------


def test_a_new_file_is_private_and_marked_as_ours(path: Path) -> None:
    old = os.umask(0)
    try:
        cache = SqliteCache(path)
    finally:
        os.umask(old)
    cache.put("1", {})
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    cache.close()
    assert pragma(path, "application_id") == APPLICATION_ID
    assert pragma(path, "user_version") == VERSION
    assert pragma(path, "journal_mode") == "wal"


def test_a_path_may_be_relative_and_the_working_directory_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = SqliteCache("with space?#%41.sqlite")
    cache.put("1", {"x": 1})
    cache.close()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cache.get("1") == {"x": 1}
    cache.close()
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["with space?#%41.sqlite"]


def test_a_missing_directory_is_named_with_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"no directory '.*nowhere'.*mkdir\(parents=True\)"):
        SqliteCache(tmp_path / "nowhere" / "answers.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_no_cache_file(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"is a directory\. Give a file in it"):
        SqliteCache(tmp_path)


@pytest.mark.parametrize("content", [b"hello", b"id,text\n" * 2000], ids=["short", "long"])
def test_a_file_that_is_no_database_is_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CacheError, match=r"answers\.sqlite' is no SQLite database and was left as it is"):
        SqliteCache(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE people (name TEXT)"],
        ["CREATE TABLE results (id INTEGER PRIMARY KEY, score REAL)"],
        [SEED_TABLE, "CREATE TABLE people (name TEXT)"],
        ["CREATE TABLE tasks (x)", "CREATE TABLE answers (x)", "CREATE TABLE requests (x)"],
        [SEED_TABLE, "PRAGMA user_version = 7"],
        [SEED_TABLE, "PRAGMA application_id = 99"],
        ["PRAGMA application_id = 99"],
    ],
    ids=["tables", "results", "mixed", "same names", "version", "application", "empty"],
)
def test_another_programs_database_is_left_as_it_is(path: Path, statements: list[str]) -> None:
    raw(path, *statements)
    before = path.read_bytes()
    with pytest.raises(CacheError, match=r"another program's database .* and was left as it is"):
        SqliteCache(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_an_empty_file_becomes_a_cache_file(path: Path) -> None:
    path.touch()
    with SqliteCache(path) as cache:
        cache.put("1", {"x": 1})
        assert cache.get("1") == {"x": 1}


def test_a_file_of_a_newer_version_says_update(archived: Path) -> None:
    raw(archived, f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(CacheError, match=r"newer lmsyz \(format \d+; .*pip install -U lmsyz"):
        SqliteCache(archived)


def test_a_file_of_version_1_is_brought_up_to_date_with_all_it_holds(path: Path) -> None:
    seed_file(path, ("1", '{"x":1}', "a" * 16), ("2", '{"x":2}', None))
    raw(
        path,
        *TABLES_1,
        f"PRAGMA application_id = {APPLICATION_ID}",
        "PRAGMA user_version = 1",
        "INSERT INTO adopted VALUES ('1', 'aaaaaaaaaaaaaaaa', 1)",
        "INSERT INTO answers VALUES (1, 1, x'00', '{\"x\":1}', 1)",
        "INSERT INTO row_ids VALUES (1, '1', x'00')",
    )
    with SqliteCache(path) as cache:
        assert cache.seed_rows(None, ["1", "2"]).keys() == {"2"}
        assert cache.answers([1]) == {b"\0": '{"x":1}'}
        cache.put("1", {"x": 3})
        assert cache.get("1") == {"x": 3}
    assert pragma(path, "user_version") == VERSION


def test_a_damaged_file_says_so_and_is_not_touched(path: Path) -> None:
    with SqliteCache(path) as cache:
        number = cache.task_id(task())
        cache.put_chunk(number, exchange(), [answer(str(i)) for i in range(3000)])
    content = bytearray(path.read_bytes())
    content[8192:-4096] = b"\xa5" * (len(content) - 12288)
    path.write_bytes(content)
    damaged = pytest.raises(CacheError, match=r"is damaged and was left as it is.*\.recover")
    with damaged, SqliteCache(path) as cache:
        cache.answers([number])
    assert path.read_bytes() == content


@pytest.mark.skipif(os.name != "posix", reason="the lock style is of SQLite's POSIX part")
def test_a_file_system_without_shared_memory_keeps_the_rollback_journal(path: Path) -> None:
    # With lock files in place of locks SQLite has no shared memory either.
    db = sqlite3.connect(f"{path.as_uri()}?vfs=unix-dotfile", uri=True, isolation_level=None)
    set_journal(db, 1.0)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    db.close()


def test_closing_twice_is_fine_and_using_it_again_opens_it_again(cache: SqliteCache) -> None:
    cache.put_chunk(cache.task_id(task()), exchange(), [answer("a")])
    cache.close()
    cache.close()
    assert cache.answers([1]) == {key("a"): '{"tone": "good"}'}


def test_a_file_made_anew_while_closed_gets_its_templates_again(cache: SqliteCache) -> None:
    cache.put_chunk(cache.task_id(task()), exchange(), [])
    cache.close()
    for file in cache.path.parent.iterdir():
        file.unlink()
    assert cache.request(cache.put_chunk(cache.task_id(task()), exchange(), [])) == EXCHANGE


def test_the_repr_names_the_file_only(cache: SqliteCache) -> None:
    assert repr(cache) == f"SqliteCache({str(cache.path)!r})"


# --- reading only -----------------------------------------------------------------------------------


def test_read_only_reads_and_does_not_write(archived: Path) -> None:
    with SqliteCache(archived, read_only=True) as cache:
        assert len(cache.answers([1])) == 2
        assert cache.task_id(task()) == 1
        assert repr(cache).endswith("read_only=True)")
        with pytest.raises(CacheError, match="opened with read_only=True"):
            cache.put("1", {})


def test_read_only_makes_no_file(path: Path) -> None:
    with pytest.raises(CacheError, match="is not there"):
        SqliteCache(path, read_only=True)
    assert not path.exists()


def test_read_only_says_when_a_file_must_be_brought_up_to_date_first(archived: Path) -> None:
    raw(archived, "DROP TABLE stale_answers", "PRAGMA user_version = 2")
    with pytest.raises(CacheError, match=r"older version .* open it once with SqliteCache\("):
        SqliteCache(archived, read_only=True)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_read_only_reads_an_empty_file_and_one_of_the_seed_package_and_leaves_them_as_they_are(
    path: Path, mode: str
) -> None:
    empty = path.with_name("empty.sqlite")
    empty.touch()
    seed_file(path, ("1", '{"tone": "good"}', None))
    raw(path, f"PRAGMA journal_mode = {mode}")
    before = path.read_bytes()
    with SqliteCache(path, read_only=True) as cache:
        assert (cache.get("1"), cache.groups()) == ({"tone": "good"}, [])
        with pytest.raises(CacheError, match="opened with read_only=True"):
            cache.put("2", {})
    with SqliteCache(empty, read_only=True) as cache:
        assert cache.all_ids() == set()
    assert (path.read_bytes(), empty.read_bytes()) == (before, b"")


UNWRITABLE = """
import os, sys
from lmsyz.cache import SqliteCache
from lmsyz.errors import CacheError
if os.geteuid() == 0:
    os.setuid(65534)  # rights mean nothing to root
for path in sys.argv[2:]:
    try:
        print(len(SqliteCache(path, read_only=sys.argv[1] == "ro").answers([1])))
    except CacheError as error:
        print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="rights of a directory are POSIX")
def test_a_file_or_directory_without_the_right_to_write_says_so_before_anything_is_asked() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories are closed to other users
        kept, closed = Path(name, "kept.sqlite"), Path(name, "closed")
        SqliteCache(kept).close()
        kept.chmod(0o444)
        closed.mkdir(mode=0o555)
        Path(name).chmod(0o755)
        told = run_python(UNWRITABLE, "rw", kept, closed / "new.sqlite").splitlines()
        assert "kept.sqlite' is not writable. Change its rights" in told[0]
        assert "new.sqlite' cannot be made (Permission denied)" in told[1]


@pytest.mark.skipif(os.name != "posix", reason="rights of a directory are POSIX")
def test_read_only_opens_an_archive_in_a_directory_that_cannot_be_written() -> None:
    with tempfile.TemporaryDirectory() as name:
        archive = Path(name, "study.sqlite")
        with SqliteCache(archive) as cache:
            cache.put_chunk(cache.task_id(task()), exchange(), [answer("a"), answer("b")])
        archive.chmod(0o444)
        Path(name).chmod(0o555)
        assert run_python(UNWRITABLE, "ro", archive) == "2\n"
        Path(name).chmod(0o755)


# --- threads, kernels, forks ------------------------------------------------------------------------

HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_file_locked_by_another_program_says_so_after_the_timeout(archived: Path) -> None:
    with SqliteCache(archived, busy_timeout_s=0.1) as cache:
        holder = python(HOLD, archived)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            with pytest.raises(CacheError, match=r"locked by another program for more than 0\.1 s"):
                cache.put("1", {})
            with pytest.raises(CacheError, match=r"locked by another program for more than 0\.2 s"):
                SqliteCache(archived, busy_timeout_s=0.2)
            assert len(cache.answers([1])) == 2
        finally:
            holder.communicate("\n", timeout=60)
        cache.put("1", {"x": 1})
        assert cache.get("1") == {"x": 1}


@pytest.mark.parametrize("by_seed", [False, True], ids=["ours", "seed"])
def test_a_short_lock_is_waited_for(path: Path, by_seed: bool) -> None:
    if by_seed:
        seed_file(path)  # SQLite does not itself wait when such a file is switched to WAL
    else:
        SqliteCache(path).close()
    holder = python(HOLD, path)
    assert holder.stdout is not None
    holder.stdout.readline()
    release = threading.Timer(0.3, lambda: holder.communicate("\n", timeout=60))
    release.start()
    with SqliteCache(path, busy_timeout_s=30) as cache:
        cache.put("1", {"x": 1})
        assert cache.get("1") == {"x": 1}
    release.join()


def test_threads_share_one_cache(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for i in range(100):
                cache.put_chunk(number, exchange(run_id=name), [answer(f"{name} {i} {j}") for j in range(3)])
                assert len(cache.answers([number], [key(f"{name} {i} {j}") for j in range(3)])) == 3
        except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=write, args=(f"t{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(cache.answers([number])) == 1200
    for i in range(4):
        assert {cache.request(a.request_id).run_id for a in cache.answers_of_run(f"t{i}")} == {f"t{i}"}


KERNEL = """
import sys
sys.path.insert(0, sys.argv[3])
from lmsyz.cache import SqliteCache
from cache_records import answer, exchange, task
print("ready", flush=True)
sys.stdin.readline()
with SqliteCache(sys.argv[1]) as cache:
    number = cache.task_id(task())
    name = sys.argv[2]
    for i in range(60):
        cache.put_chunk(number, exchange(run_id=name), [answer(f"{name} {i} {j}") for j in range(5)])
    print(len(cache.answers([number], [answer(f"{name} {i} 0").key for i in range(60)])))
"""


def test_kernels_that_open_a_new_file_at_once_all_write_to_it(path: Path) -> None:
    kernels = [python(KERNEL, path, f"k{i}", Path(__file__).parent) for i in range(4)]
    for kernel in kernels:
        assert kernel.stdout is not None
        assert kernel.stdout.readline() == "ready\n"
    for kernel in kernels:
        assert kernel.stdin is not None
        kernel.stdin.write("\n")
        kernel.stdin.flush()
    for kernel in kernels:
        out, err = kernel.communicate(timeout=120)
        assert (kernel.returncode, out) == (0, "60\n"), err
    with SqliteCache(path) as cache:
        assert len(cache.tasks()) == 1
        assert len(cache.answers([1])) == 4 * 60 * 5
        assert [len(list(cache.answers_of_run(f"k{i}"))) for i in range(4)] == [300] * 4


FORK = """
import os, sys, threading
sys.path.insert(0, sys.argv[2])
from lmsyz.cache import SqliteCache
from cache_records import answer, exchange, task
cache = SqliteCache(sys.argv[1])
number = cache.task_id(task())
cache.put_chunk(number, exchange(), [answer("before")])
held, forked = threading.Event(), threading.Event()

def hold():  # as a thread that writes at the moment of the fork
    with cache._lock:
        held.set()
        forked.wait()

threading.Thread(target=hold).start()
held.wait()
inherited = cache._connection
child = os.fork()
forked.set()
for i in range(50):
    cache.put_chunk(number, exchange(), [answer(f"{'parent' if child else 'child'} {i}")])
assert (cache._connection is inherited) == bool(child)
if child == 0:
    cache.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(len(cache.answers([number])))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_opens_its_own_connection(path: Path) -> None:
    assert run_python(FORK, path, Path(__file__).parent) == "101\n"
