"""``image_col``: live and by batch, on both wires, each answer under the image that it is about."""

from __future__ import annotations

import base64
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from anthropic.types import ImageBlockParam, TextBlockParam
from cache_records import run_python, seed_file
from image_files import gif, jpeg, png, saved, sha, webp
from openai.types.chat import ChatCompletionContentPartParam
from openai.types.responses import ResponseInputContentParam
from pydantic import TypeAdapter

import lmsyz
from lmsyz import images
from lmsyz.batch_job import BatchJob
from lmsyz.cache import SqliteCache
from lmsyz.cache_rows import RowFilter
from lmsyz.errors import ImageError, UsageError
from lmsyz.image_check import media_type_of, pixels_of, read_images
from lmsyz.image_rows import chunks_within
from lmsyz.images import Image, ImageLimits
from lmsyz.providers import wire
from lmsyz.providers.base import Form
from lmsyz.providers.images import image_limits
from lmsyz.rows import Rows, text_key
from lmsyz.task import Task

pytestmark = pytest.mark.usefixtures("quick_batches")

PROMPT = "Give the digests."
SCHEMA = {"digest": str, "image_sha256": str}
ALONE = {"image_sha256": str}
WIRES = [("openai", "chat"), ("openai", "responses"), ("anthropic", "messages")]
LIMITS = ImageLimits(n_images=3, n_bytes=1000, n_bytes_each=10_000)


@pytest.fixture(params=WIRES, ids=[api for _, api in WIRES])
def where(request: pytest.FixtureRequest) -> dict[str, str]:
    backend, api = request.param
    return {"backend": backend, "api": api}


def frame(folder: Path, n: int = 6) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"Caption {i}." for i in range(n)], "image": saved(folder, n)})


def extract(df: pd.DataFrame, **about: Any) -> pd.DataFrame:
    options: dict[str, Any] = {"schema": SCHEMA, "image_col": "image", "cache_path": "c.sqlite"} | about
    out: pd.DataFrame = df.ie.extract(PROMPT, **options)
    return out


def digests(df: pd.DataFrame) -> list[str]:
    return [sha(Path(path).read_bytes()) for path in df["image"]]


def assert_each_has_its_own(df: pd.DataFrame, out: pd.DataFrame) -> None:
    assert out["ie_error"].isna().all(), out["ie_error"].tolist()
    assert out["image_sha256"].tolist() == digests(df)


# --- live -----------------------------------------------------------------------------------------------------------


def test_text_and_image_are_asked_about_together_and_come_back_aligned(
    sandbox_default: Any, tmp_path: Path, where: dict[str, str]
) -> None:
    df = frame(tmp_path).set_index(pd.Index(list("fedcba")))
    out = extract(df, **where)
    assert_each_has_its_own(df, out)
    assert out.index.equals(df.index)
    assert out["digest"].tolist() == [sha(text.encode())[:16] for text in df["text"]]


def test_what_was_asked_is_not_asked_again_and_a_changed_image_is(
    sandbox_default: Any, tmp_path: Path, where: dict[str, str]
) -> None:
    df = frame(tmp_path).assign(id=range(6))
    first = extract(df, id_col="id", **where)
    n = sandbox_default.stats()["n_requests"]
    pd.testing.assert_frame_equal(extract(df, id_col="id", **where), first)
    assert sandbox_default.stats()["n_requests"] == n
    df["image"][2].write_bytes(png(99))
    told = df.ie.stale(PROMPT, schema=SCHEMA, image_col="image", id_col="id", cache_path="c.sqlite", **where)
    assert told.to_dict("list") == {
        "action": ["reuse", "ask"],
        "reason": ["same question", "text or image changed"],
        "rows": [5, 1],
    }
    assert_each_has_its_own(df, extract(df, id_col="id", **where))
    assert sandbox_default.stats()["n_requests"] == n + 1


@pytest.mark.parametrize("where", WIRES[::2], indirect=True)
def test_sixty_rows_keep_their_images_when_answers_are_swapped_and_missing(
    sandbox_default: Any, tmp_path: Path, where: dict[str, str]
) -> None:
    df = frame(tmp_path, 60)
    sandbox_default.set_faults(swapped=0.1, missing=0.1, duplicated=0.1, foreign=0.1)
    out = extract(df, verify_rows=True, **where)
    assert_each_has_its_own(df, out)
    assert out["digest"].tolist() == [sha(text.encode())[:16] for text in df["text"]]


def test_all_kinds_of_values_name_the_same_image(sandbox_default: Any, tmp_path: Path) -> None:
    path = saved(tmp_path, 1)[0]
    raw = path.read_bytes()
    url = f"data:image/png;base64,{base64.b64encode(raw).decode()}"
    df = pd.DataFrame({"image": [path, str(path), raw, url, "https://example.invalid/a.png", None, float("nan")]})
    out = extract(df, text_col=None, schema=ALONE, backend="anthropic")
    address = sha(b"https://example.invalid/a.png")
    assert out["image_sha256"].tolist()[:5] == [sha(raw)] * 4 + [address]
    assert out["ie_error"].tolist()[5:] == ["invalid: neither text nor image"] * 2
    assert sandbox_default.stats()["n_rows"] == 2


def test_the_type_is_told_by_the_bytes_and_not_by_the_name(sandbox_default: Any, tmp_path: Path) -> None:
    raws = [png(), gif(), jpeg(), webp()]
    paths = [tmp_path / f"{i}.bmp" for i in range(4)]
    for path, raw in zip(paths, raws, strict=True):
        path.write_bytes(raw)
    df = pd.DataFrame({"image": [str(path) for path in paths]})
    out = extract(df, text_col=None, schema={"image_type": str}, backend="anthropic")
    assert out["image_type"].tolist() == ["image/png", "image/gif", "image/jpeg", "image/webp"]


def test_rows_without_image_are_the_rows_that_a_call_without_images_knows(sandbox_default: Any, tmp_path: Path) -> None:
    df = frame(tmp_path)
    texts = df.ie.extract(PROMPT, schema={"digest": str}, cache_path="c.sqlite")
    n = sandbox_default.stats()["n_requests"]
    none = extract(df.assign(image=None), schema={"digest": str})
    pd.testing.assert_frame_equal(none, texts)
    assert sandbox_default.stats()["n_requests"] == n


def test_equal_text_and_image_are_asked_once_and_either_alone_is_another_row(
    sandbox_default: Any, tmp_path: Path
) -> None:
    a, b = saved(tmp_path, 2)
    df = pd.DataFrame({"text": ["x", "x", "x", "y", "x"], "image": [a, b, a, a, None]})
    out = extract(df, schema={"digest": str})
    assert out["ie_error"].isna().all()
    assert sandbox_default.stats()["n_rows"] == 4
    extract(df, schema={"digest": str}, dedupe=False, cache_path="each.sqlite")
    assert sandbox_default.stats()["n_rows"] == 9


def test_several_text_columns_go_with_an_image(sandbox_default: Any, tmp_path: Path, where: dict[str, str]) -> None:
    df = frame(tmp_path, 3).assign(more=["a", None, "c"])
    out = extract(df, text_col=["text", "more"], schema={"more": str | None, "image_sha256": str}, **where)
    assert_each_has_its_own(df, out)
    assert out["more"].tolist()[0] == "a"
    n = sandbox_default.stats()["n_requests"]
    extract(df, text_col=["text", "more"], schema={"more": str | None, "image_sha256": str}, **where)
    assert sandbox_default.stats()["n_requests"] == n


def test_a_run_in_the_background_takes_images_too(sandbox_default: Any, tmp_path: Path) -> None:
    df = frame(tmp_path)
    assert_each_has_its_own(df, extract(df, background=True).result())  # type: ignore[operator]


def test_ids_that_look_like_json_name_their_images_all_the_same(
    sandbox_default: Any, tmp_path: Path, where: dict[str, str]
) -> None:
    df = frame(tmp_path, 3).assign(id=['[{"input_id"', 'a"b', "é]"])
    assert_each_has_its_own(df, extract(df, id_col="id", **where))


def test_images_alone_with_verified_rows_are_asked_about_one_by_one(sandbox_default: Any, tmp_path: Path) -> None:
    df = frame(tmp_path, 4)
    assert_each_has_its_own(df, extract(df, text_col=None, schema=ALONE, verify_rows=True))
    assert sandbox_default.stats()["n_requests"] == 4  # no opening words could tell them apart


def test_a_seed_cache_has_no_answers_about_images(sandbox_default: Any, tmp_path: Path) -> None:
    rows = [(i, json.dumps({"input_id": i, "digest": "seed"}), lmsyz.compute_prompt_hash(PROMPT)) for i in "ab"]
    seed_file(tmp_path / "c.sqlite", *rows)
    df = frame(tmp_path, 2).assign(id=["a", "b"])
    df.loc[1, "image"] = None
    about: dict[str, Any] = {"schema": {"digest": str}, "id_col": "id", "cache_path": "c.sqlite", "image_col": "image"}
    told = df.ie.stale(PROMPT, **about)
    assert dict(zip(told["action"], told["rows"], strict=True)) == {"reuse": 1, "ask": 1}
    out = df.ie.extract(PROMPT, **about)
    assert out["digest"].tolist() == [sha(b"Caption 0.")[:16], "seed"]


def test_the_panel_tells_of_rows_with_images(sandbox_default: Any, tmp_path: Path) -> None:
    df = frame(tmp_path)
    extract(df.head(2))
    panel = df.ie.panel(PROMPT, schema=SCHEMA, image_col="image", cache_path="c.sqlite")
    assert panel.rows()["action"].tolist() == ["reuse"] * 2 + ["ask"] * 4


def test_a_look_beforehand_says_what_rows_with_nothing_to_ask_about_lack(sandbox_default: Any, tmp_path: Path) -> None:
    df = frame(tmp_path, 3).astype(object)
    df.loc[1, ["text", "image"]] = None
    told = df.ie.stale(PROMPT, schema=SCHEMA, image_col="image")
    assert told["reason"].tolist() == ["new row", "neither text nor image"]


def test_a_setting_of_fewer_rows_a_request_holds_for_images_too(
    sandbox_default: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMSYZ_CHUNK_SIZE", "1")
    extract(frame(tmp_path, 3))
    assert sandbox_default.stats()["n_requests"] == 3


def test_a_call_that_asks_about_texts_alone_says_so(sandbox_default: Any, tmp_path: Path) -> None:
    df = frame(tmp_path, 1).assign(id=1)
    with pytest.raises(UsageError, match="image_col= is for"):
        lmsyz.extract_df(df, prompt=PROMPT, model="m", cache_path="c.sqlite", image_col="image")
    with pytest.raises(UsageError, match="image_col= is for"):
        df.ie.draft("Name the animal.", image_col="image")


# --- an image that changes while the run goes on ----------------------------------------------------------------------


def test_a_file_that_changes_after_it_was_looked_at_fails_its_row_alone(
    sandbox_default: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    df = frame(tmp_path)
    old = digests(df)

    def connect(*args: Any, **kwargs: Any) -> Any:
        df["image"][1].write_bytes(png(77))
        df["image"][4].unlink()
        return real(*args, **kwargs)

    real = lmsyz.extract.connect_place
    monkeypatch.setattr("lmsyz.extract.connect_place", connect)
    out = extract(df)
    assert out["ie_error"].notna().tolist() == [False, True, False, False, True, False]
    assert "has changed since the call began" in out["ie_error"][1]
    assert "can no longer be read" in out["ie_error"][4]
    good = [0, 2, 3, 5]
    assert out["image_sha256"][good].tolist() == [old[i] for i in good]
    assert sandbox_default.stats()["n_rows"] == 4


@pytest.mark.parametrize("where", WIRES, indirect=True, ids=[api for _, api in WIRES])
def test_an_address_that_cannot_be_fetched_fails_its_row_alone(
    sandbox_default: Any, tmp_path: Path, where: dict[str, str]
) -> None:
    df = frame(tmp_path)
    df["image"] = [*df["image"][:4], "https://example.invalid/404.png", df["image"][5]]
    out = extract(df, **where)
    assert out["ie_error"].notna().tolist() == [False] * 4 + [True, False]
    assert "ownload" in out["ie_error"][4]


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nowhere.png", "there is no file"),
        (".", "is a folder"),
        (b"%PDF-1.7 ...", "neither PNG, JPEG, GIF nor WEBP"),
        (b"", "there are none"),
        ("~nobody-of-this-name/a.png", "there is no file"),
        ("iVBORw0KGgo" * 400, "cannot be read"),
        ("", "an empty text"),
        ("  ", "an empty text"),
        (7, "a value of type int"),
        ("ftp://example.invalid/a.png", "no address that a provider fetches"),
        ("https://", "no web address"),
        ("data:image/png,abc", "the data URL cannot be read"),
        ("data:image/png;base64,a=b=", "the data URL cannot be read"),
        (png() + b"x" * 4_000_000, "this provider takes 3,932,160"),
        (png(width=8001, height=1), "8,001 pixels"),
        ("http://example.invalid/a.png", "https:// addresses alone"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_any_file_or_request(
    sandbox_default: Any, tmp_path: Path, value: Any, said: str
) -> None:
    df = pd.DataFrame({"text": ["a", "b"], "image": [png(), value]})
    for call in (df.ie.extract, df.ie.batch, df.ie.stale):
        with pytest.raises(UsageError, match=r"image_col='image' has 1 of 2 images.*row 1: .*Nothing was sent") as told:
            call(PROMPT, image_col="image", backend="anthropic")
        assert said in str(told.value)
    assert [path.name for path in tmp_path.iterdir() if path.name != "sandbox"] == []
    assert sandbox_default.stats()["n_requests"] == 0


def test_a_file_whose_name_begins_with_a_tilde_is_read_where_nobody_is_called_so(tmp_path: Path) -> None:
    Path("~scan.png").write_bytes(png())
    (image,) = read_images(["~scan.png"], column="image", limits=LIMITS)
    assert image is not None
    assert image.source == tmp_path / "~scan.png"


def test_a_pipe_is_no_image_and_does_not_hold_the_call_up(sandbox_default: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UsageError, match=r"pipe.png' is no file"):
        extract(pd.DataFrame({"text": ["a"], "image": ["pipe.png"]}))


def test_the_first_offenders_are_named_by_their_ids(sandbox_default: Any) -> None:
    df = pd.DataFrame({"text": ["x"] * 9, "id": list("abcdefghi"), "image": [f"{i}.png" for i in range(9)]})
    with pytest.raises(UsageError, match=r"9 of 9 images.*row a: .*row e: .*\.\.\.") as told:
        extract(df, id_col="id")
    assert "row f" not in str(told.value)


def test_missing_columns_are_named(sandbox_default: Any, tmp_path: Path) -> None:
    df = frame(tmp_path, 1)
    with pytest.raises(UsageError, match=r"has no column 'picture'.*image_col="):
        extract(df, image_col="picture")
    with pytest.raises(UsageError, match=r"has no column 'text'.*images alone, text_col=None"):
        extract(df.drop(columns="text"))


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_each_image_stands_after_a_text_that_names_its_row(
    sandbox_default: Any, tmp_path: Path, where: dict[str, str]
) -> None:
    df = frame(tmp_path, 3).assign(id=["a", "b", "c"])
    df.loc[1, "image"] = None
    body = build(df, where)
    messages = body.get("messages") or body["input"]
    *parts, last = messages[-1]["content"]
    rows = json.loads(last["text"])
    assert [(r["input_id"], r.get("input_image")) for r in rows] == [("a", 1), ("b", None), ("c", 2)]
    labels, pictures = parts[::2], parts[1::2]
    assert ['"input_id": "a"' in labels[0]["text"], '"input_id": "c"' in labels[1]["text"]] == [True, True]
    data = [base64.b64encode(p.read_bytes()).decode() for p in df["image"].dropna()]
    wanted = {
        "chat": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{d}"}} for d in data],
        "responses": [
            {"type": "input_image", "image_url": f"data:image/png;base64,{d}", "detail": "auto"} for d in data
        ],
        "messages": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": d}} for d in data
        ],
    }
    assert pictures == wanted[where["api"]]


def test_the_parts_are_what_the_sdks_types_say(tmp_path: Path) -> None:
    df = frame(tmp_path, 2).assign(id=["a", "b"])
    df.loc[1, "image"] = "https://example.invalid/b.png"
    chat, responses, messages = (build(df, {"backend": b, "api": a}) for b, a in WIRES)
    checks: list[tuple[Any, Any]] = [
        (ChatCompletionContentPartParam, chat["messages"][-1]["content"]),
        (ResponseInputContentParam, responses["input"][-1]["content"]),
        (ImageBlockParam | TextBlockParam, messages["messages"][-1]["content"]),
    ]
    for kind, parts in checks:
        assert len(TypeAdapter(list[kind]).validate_python(parts)) == 5


def build(df: pd.DataFrame, where: dict[str, str]) -> dict[str, Any]:
    from lmsyz.frame_rows import read_rows
    from lmsyz.rows import make_chunk

    rows = read_rows(df, "text", "id", image_col="image", image_limits=image_limits(where["backend"]))
    chunk = make_chunk(rows, range(len(df)))
    task = Task(backend=where["backend"], api=where["api"], endpoint="e", model="m", prompt=PROMPT)
    provider = wire(where["backend"], api=where["api"], model="m")
    return provider.build(task, chunk.user, Form.TEXT, images.image_parts(chunk.images))


def test_a_body_without_images_is_what_it_always_was(where: dict[str, str]) -> None:
    task = Task(backend=where["backend"], api=where["api"], endpoint="e", model="m", prompt=PROMPT)
    provider = wire(where["backend"], api=where["api"], model="m")
    assert provider.build(task, "rows", Form.TEXT, []) == provider.build(task, "rows", Form.TEXT)
    assert provider.content("rows", []) == "rows"


def test_the_store_has_a_reference_in_place_of_each_image_and_finds_row_and_text(
    sandbox_default: Any, tmp_path: Path, where: dict[str, str]
) -> None:
    df = frame(tmp_path, 3).assign(id=["a", "b", "c"])
    df.loc[2, "image"] = "https://example.invalid/c.png"
    extract(df, id_col="id", chunk_size=3, **where)
    with SqliteCache("c.sqlite") as cache:
        (number,) = cache.requests_for_row("b")
        request = cache.request(number)
        page = cache.find(RowFilter(), limit=10)
    raw = df["image"][1].read_bytes()
    assert f"sha256:{sha(raw)} (image/png, {len(raw)} bytes)" in request.body
    assert base64.b64encode(raw).decode() not in request.body
    assert "https://example.invalid/c.png" in request.body
    assert json.loads(request.body)["model"] == "sandbox-rules"
    assert request.user
    assert request.user in request.body
    assert {(row.row_id, row.text) for row in page.rows} == {(i, t) for i, t in zip(df["id"], df["text"], strict=True)}


def test_requests_of_one_task_share_what_they_have_in_common(sandbox_default: Any, tmp_path: Path) -> None:
    extract(frame(tmp_path, 9), chunk_size=1)
    with SqliteCache("c.sqlite") as cache, cache._reading() as db:
        assert db.execute("SELECT count(*) FROM request_templates").fetchone() == (1,)


# --- sizes ------------------------------------------------------------------------------------------------------------


def image(n_bytes: int, name: str = "") -> Image:
    return Image(name=name or f"sha256:{n_bytes:064x}", n_bytes=n_bytes, source=b"")


def chunks(sizes: list[int | None], *, size: int = 10, limits: ImageLimits = LIMITS) -> list[tuple[int, ...]]:
    found = [image(n) if n is not None else None for n in sizes]
    rows = Rows(texts=["t"] * len(sizes), keys=[b"k"] * len(sizes), images=found)
    whole = [tuple(range(start, min(start + size, len(sizes)))) for start in range(0, len(sizes), size)]
    return list(chunks_within(whole, rows, limits))


def test_a_request_holds_no_more_images_and_bytes_than_it_may() -> None:
    assert chunks([3] * 7) == [(0, 1, 2), (3, 4, 5), (6,)]
    assert chunks([300, 300, 300, 6000, 3]) == [(0, 1), (2,), (3,), (4,)]
    assert chunks([3, 3, None, 3, None, 3, None]) == [(0, 1, 2, 3, 4), (5, 6)]


def test_rows_without_images_are_cut_no_further() -> None:
    rows = Rows(texts=["t"] * 9, keys=[b"k"] * 9)
    assert list(chunks_within([(0, 1, 2, 3, 4, 5, 6, 7, 8)], rows, LIMITS)) == [tuple(range(9))]


def test_a_request_holds_four_rows_with_images_unless_asked_for_more(sandbox_default: Any, tmp_path: Path) -> None:
    extract(frame(tmp_path, 8))
    assert sandbox_default.stats()["n_requests"] == 2
    extract(frame(tmp_path, 8), chunk_size=8, fresh=True)
    assert sandbox_default.stats()["n_requests"] == 3


def test_headers_tell_type_and_size() -> None:
    for raw, kind, size in (
        (png(width=300, height=7), "image/png", (300, 7)),
        (gif(5, 4), "image/gif", (5, 4)),
        (jpeg(640, 480), "image/jpeg", (640, 480)),
        (webp(30, 20), "image/webp", (30, 20)),
        (b"RIFF....WAVE", "", (0, 0)),
        (png()[:20], "image/png", (0, 0)),
    ):
        assert (media_type_of(raw), pixels_of(raw)) == (kind, size)


def test_an_image_counts_by_its_pixels_and_no_more_than_a_large_one() -> None:
    sizes = [(750, 1), (1500, 10), (9000, 9000), (0, 0)]
    label = images.LABEL_TOKENS
    assert [Image(name="u", width=w, height=h).tokens - label for w, h in sizes] == [1, 20, 1600, 1600]


def test_a_key_without_image_is_the_key_of_its_text() -> None:
    assert text_key("a", image="") == text_key("a")
    assert len({text_key("a"), text_key("a", image="sha256:1"), text_key("a", image="sha256:2")}) == 3


def test_looking_at_files_keeps_none_of_their_bytes(tmp_path: Path) -> None:
    paths = saved(tmp_path, 12)
    for path in paths:
        path.write_bytes(path.read_bytes() + b"\0" * 2_000_000)
    limits = ImageLimits(n_images=9, n_bytes=9, n_bytes_each=9_000_000)
    tracemalloc.start()
    found = read_images(paths, column="image", limits=limits)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(one is not None and one.n_bytes > 2_000_000 for one in found)
    assert kept < 1_000_000
    assert most < 8_000_000


def test_a_run_has_the_bytes_of_what_is_in_flight_alone_in_memory(sandbox_default: Any, tmp_path: Path) -> None:
    df = frame(tmp_path, 24)
    for path in df["image"]:
        path.write_bytes(path.read_bytes() + b"\0" * 1_000_000)
    extract(df.head(1), chunk_size=1)  # what is loaded once is no part of it
    tracemalloc.start()
    out = extract(df, chunk_size=1, max_workers=1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert_each_has_its_own(df, out)
    assert most < 20_000_000  # all of them are 24 MB, and 32 MB as base64


# --- batch ------------------------------------------------------------------------------------------------------------


def submit(df: pd.DataFrame, **about: Any) -> BatchJob:
    options: dict[str, Any] = {"schema": SCHEMA, "image_col": "image", "cache_path": "c.sqlite"} | about
    job: BatchJob = df.ie.batch(PROMPT, **options)
    return job


def test_a_batch_brings_home_what_a_live_call_would(server: Any, tmp_path: Path, where: dict[str, str]) -> None:
    df = frame(tmp_path, 7)
    job = submit(df, **where)
    job.wait()
    out = job.results()
    assert_each_has_its_own(df, out)
    n = server.stats()["n_requests"]
    pd.testing.assert_frame_equal(extract(df, **where), out)
    assert server.stats()["n_requests"] == n


def test_a_batch_stores_references_and_sends_the_bytes(server: Any, tmp_path: Path, where: dict[str, str]) -> None:
    df = frame(tmp_path, 3).assign(id=["a", "b", "c"], text=["ä", "ö", "ü"])
    live = extract(df, id_col="id", chunk_size=3, cache_path="live.sqlite", **where)
    job = submit(df, id_col="id", chunk_size=3, **where)
    job.wait()
    pd.testing.assert_frame_equal(job.results(), live)
    with SqliteCache("c.sqlite") as cache, SqliteCache("live.sqlite") as other:
        by_batch = cache.request(cache.requests_for_row("b")[0])
        by_live = other.request(other.requests_for_row("b")[0])
    assert by_batch.body == by_live.body
    assert by_batch.user == by_live.user
    files = [path for path in job.folder.glob("batch_input/*") if path.suffix in (".json", ".jsonl")]
    data = base64.b64encode(df["image"][0].read_bytes()).decode()
    assert [data in path.read_text(encoding="utf-8") for path in files] == [True]


def test_another_kernel_asks_again_from_the_jobs_own_copy_of_the_images(
    server: Any, tmp_path: Path, where: dict[str, str]
) -> None:
    df = frame(tmp_path, 12).assign(id=[f"r{i}" for i in range(12)])
    df.loc[3, "text"] = None
    wanted = digests(df)
    server.set_faults(batch_s=0.05, batch_errors=0.5)
    job = submit(df, id_col="id", schema=ALONE, chunk_size=1, **where)
    job.wait()
    n_failed = int(job.results()["ie_error"].notna().sum())
    assert 0 < n_failed < 12
    for path in df["image"]:
        path.unlink()
    server.set_faults(batch_s=0.05)
    again = BatchJob.load(job.job_id)
    again.retry()
    again.wait()
    out = again.results()
    assert out["ie_error"].isna().all(), out["ie_error"].tolist()
    assert out["image_sha256"].tolist() == wanted
    assert server.stats()["n_rows"] <= 24


def test_another_kernel_says_of_rows_with_nothing_to_ask_about_what_they_lack(server: Any, tmp_path: Path) -> None:
    df = frame(tmp_path, 3).astype(object)
    df.loc[1, ["text", "image"]] = None
    job = submit(df, job_id="j")
    job.wait()
    out = BatchJob.load("j").results()
    assert out["ie_error"].tolist()[1] == "invalid: neither text nor image"
    pd.testing.assert_frame_equal(out, job.results())


def test_an_image_that_changes_while_a_batch_is_written_stops_it_before_anything_is_sent(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    df = frame(tmp_path)

    def connect(*args: Any, **kwargs: Any) -> Any:
        df["image"][1].write_bytes(png(77))
        return real(*args, **kwargs)

    real = lmsyz.batch_setup.connect_place
    monkeypatch.setattr("lmsyz.batch_setup.connect_place", connect)
    with pytest.raises(ImageError, match="has changed since the call began"):
        submit(df)
    assert server.stats()["n_requests"] == 0
    job = submit(df)
    job.wait()
    assert_each_has_its_own(df, job.results())


def test_a_process_that_never_saw_the_frame_brings_the_job_home(
    server: Any, tmp_path: Path, where: dict[str, str]
) -> None:
    df = frame(tmp_path, 5)
    wanted = digests(df)
    job = submit(df, text_col=None, schema=ALONE, **where)
    for path in df["image"]:
        path.unlink()
    code = """
import json, sys
import lmsyz
job = lmsyz.BatchJob.load(sys.argv[1])
job.wait()
print(json.dumps(job.results()["image_sha256"].tolist()))
"""
    assert json.loads(run_python(code, job.job_id).splitlines()[-1]) == wanted


@pytest.mark.parametrize("in_another_kernel", [False, True])
def test_rows_left_over_are_finished_live_without_the_files(
    server: Any, tmp_path: Path, where: dict[str, str], in_another_kernel: bool
) -> None:
    df = frame(tmp_path, 6)
    df["image"] = [df["image"][0], "https://example.invalid/b.png", *df["image"][2:]]
    server.set_faults(batch_s=0.05, batch_errors=1.0)
    job = submit(df, **where)
    job.wait()
    assert job.results()["ie_error"].notna().all()
    wanted = [sha(v.encode()) if isinstance(v, str) else sha(v.read_bytes()) for v in df["image"]]
    df["image"][0].write_bytes(png(500))
    server.set_faults()
    out = (BatchJob.load(job.job_id) if in_another_kernel else job).finish_live()
    assert out["image_sha256"].tolist() == wanted


def test_the_same_call_again_sends_a_changed_image_alone(server: Any, tmp_path: Path) -> None:
    df = frame(tmp_path, 5)
    submit(df, job_id="j").wait()
    df["image"][2].write_bytes(png(99))
    job = submit(df, job_id="j")
    assert job.status().n_requests == 3
    job.wait()
    assert_each_has_its_own(df, job.results())
