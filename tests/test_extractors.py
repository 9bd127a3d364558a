"""The seed's batch classes: its steps, its files and its results, over the engine that pays for nothing twice."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import lmsyz
from lmsyz import batch_wait
from lmsyz.batch_ledger import Ledger
from lmsyz.errors import BatchError, MissingKeyError, ProviderError, UsageError
from lmsyz.providers.anthropic_batches import AnthropicBatches
from lmsyz.providers.openai_batches import OpenAIBatches

pytestmark = pytest.mark.usefixtures("quick_batches")

PROMPT = """\
Code the tone of each text.
1. input_id: copy it.
2. tone: "positive", "neutral" or "negative".
Return JSON: {"all_results": [{"input_id": "1", "tone": "positive"}]}"""
TEXTS = ["A great year, a wonderful success.", "A terrible loss, an awful year.", "The meeting is on Tuesday."]
TONES = ["positive", "negative", "neutral"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """One of the two classes, its steps under one name."""

    backend: str
    kind: type
    root: str

    @property
    def folder(self) -> Path:
        return Path(self.root, "job")

    def made(self, **about: Any) -> Any:
        return self.kind(batch_root_dir=self.root, **about)

    def build(self, df: pd.DataFrame, prompt: str = PROMPT, model_name: str = "sandbox-rules", **about: Any) -> Any:
        steps = self.made()
        create = steps.create_batch_jsonl if self.backend == "openai" else steps.create_batch_requests
        return create(
            dataframe=df, id_col="id", text_col="text", prompt=prompt, job_id="job", model_name=model_name, **about
        )

    def submit(self) -> Any:
        steps = self.made()
        return steps.submit_batches("job") if self.backend == "openai" else steps.submit_batch("job")

    def look(self, **about: Any) -> Any:
        return self.made().check_batch_status("job", **about)

    def wait(self) -> Any:
        return self.look(continuous=True, interval=0.05)

    def frame(self) -> Any:
        return self.made().retrieve_results_as_dataframe("job")

    def bodies(self) -> list[dict[str, Any]]:
        """What was built, request by request, whichever files it is in."""
        inputs = self.folder / "batch_input"
        if self.backend == "anthropic":
            return [r["params"] for r in json.loads((inputs / "requests.json").read_text())["requests"]]
        files = [p for p in sorted(inputs.glob("batch_*.jsonl")) if not p.name.endswith(".rows.jsonl")]
        return [json.loads(line)["body"] for p in files for line in p.read_text().splitlines()]


@pytest.fixture(params=["openai", "anthropic"])
def seed(request: pytest.FixtureRequest) -> Seed:
    backend = str(request.param)
    kinds = {"openai": lmsyz.OpenAIBatchExtractor, "anthropic": lmsyz.AnthropicBatchExtractor}
    return Seed(backend=backend, kind=kinds[backend], root="jobs")


def numbered(n: int, first: int = 0) -> pd.DataFrame:
    ids = range(first, first + n)
    return pd.DataFrame({"id": list(ids), "text": [f"Text {i} is a great success." for i in ids]})


def small() -> pd.DataFrame:
    return pd.DataFrame({"id": [1, 2, 3], "text": TEXTS})


def paid(server: Any) -> int:
    return int(server.stats()["n_batch_rows_paid"])


# --- the four steps -----------------------------------------------------------------------------------------------


OPENAI_EXAMPLE = """
from lmsyz import OpenAIBatchExtractor

ext = OpenAIBatchExtractor(batch_root_dir="my_job/")

ext.create_batch_jsonl(
    dataframe=df, id_col="id", text_col="text",
    prompt=prompt, job_id="my_job",
    model_name="gpt-4.1-mini",
    schema_dict=None,
)
ext.submit_batches("my_job")
ext.check_batch_status("my_job",
                       continuous=True, interval=60)
out = ext.retrieve_results_as_dataframe("my_job")
"""
ANTHROPIC_EXAMPLE = """
from lmsyz import AnthropicBatchExtractor

ext = AnthropicBatchExtractor(batch_root_dir="my_job/")
ext.create_batch_requests(
    dataframe=df, id_col="id", text_col="text",
    prompt=prompt, job_id="my_job",
    model_name="claude-haiku-4-5-20251001",
    schema_dict=None,
)
ext.submit_batch("my_job")
ext.check_batch_status("my_job", continuous=True)
out = ext.retrieve_results_as_dataframe("my_job")
"""


@pytest.mark.parametrize("example", [OPENAI_EXAMPLE, ANTHROPIC_EXAMPLE], ids=["openai", "anthropic"])
def test_the_seed_readmes_example_runs_with_only_the_import_changed(
    server: Any, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    """Version 0.1.4's, with the package's name changed and the comments left out; only the waiting is shortened."""
    monkeypatch.setattr(batch_wait, "SHORTEST_POLL_S", 0.0)
    server.set_faults(batch_s=0.0)
    names: dict[str, Any] = {"df": small(), "prompt": PROMPT}
    exec(example, names)
    assert names["out"]["input_id"].tolist() == ["1", "2", "3"]
    assert names["out"]["tone"].tolist() == TONES
    assert paid(server) == 3


def test_openais_steps_as_the_seeds_reader_writes_them(server: Any) -> None:
    df = small()
    server.set_faults(batch_s=1000)
    ext = lmsyz.OpenAIBatchExtractor(batch_root_dir="my_job/")
    ext.create_batch_jsonl(
        dataframe=df,
        id_col="id",
        text_col="text",
        prompt=PROMPT,
        job_id="my_job",
        model_name="sandbox-rules",
        schema_dict=None,
    )
    assert ext.submit_batches("my_job") is None
    server.advance(1000)
    ext.check_batch_status("my_job", continuous=True, interval=60)
    out = ext.retrieve_results_as_dataframe("my_job")
    assert out.columns.tolist() == ["input_id", "tone"]
    assert out["input_id"].tolist() == ["1", "2", "3"]
    assert out["tone"].tolist() == TONES


def test_anthropics_steps_as_the_seeds_reader_writes_them(server: Any) -> None:
    df = small()
    server.set_faults(batch_s=1000)
    ext = lmsyz.AnthropicBatchExtractor(batch_root_dir="my_job/")
    path = ext.create_batch_requests(
        dataframe=df,
        id_col="id",
        text_col="text",
        prompt=PROMPT,
        job_id="my_job",
        model_name="sandbox-rules",
        schema_dict=None,
    )
    assert path == Path("my_job/my_job/batch_input/requests.json").absolute()
    batch_id = ext.submit_batch("my_job")
    assert [b["id"] for b in server.batches()] == [batch_id]
    assert ext.check_batch_status("my_job") == "in_progress"
    with pytest.raises(TimeoutError, match="goes on at Anthropic"):
        ext.check_batch_status("my_job", continuous=True, timeout=0)
    server.advance(1000)
    assert ext.check_batch_status("my_job", continuous=True) == "ended"
    out = ext.retrieve_results_as_dataframe("my_job")
    assert out["input_id"].tolist() == ["1", "2", "3"]
    assert out["tone"].tolist() == TONES


def test_the_files_have_the_seeds_names_and_are_private(server: Any) -> None:
    openai = Seed(backend="openai", kind=lmsyz.OpenAIBatchExtractor, root="jobs")
    server.set_faults(batch_s=0.05, batch_errors=0.5)
    openai.build(numbered(20), chunk_size=1)
    openai.submit()
    openai.wait()
    (remote,) = [b["id"] for b in server.batches()]
    anthropic = Seed(backend="anthropic", kind=lmsyz.AnthropicBatchExtractor, root="others")
    anthropic.build(small())
    anthropic.submit()
    anthropic.wait()
    expected = {
        openai: [
            "batch_input/batch_1.jsonl",
            f"batch_output/submission_{remote}.json",
            f"batch_output/batch_result_{remote}.jsonl",
            f"batch_output/batch_error_{remote}.txt",
        ],
        anthropic: ["batch_input/requests.json", "batch_input/submission.json", "batch_output/results.jsonl"],
    }
    for steps, names in expected.items():
        assert [n for n in names if not (steps.folder / n).is_file()] == []
        for path in steps.folder.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert json.loads((openai.folder / f"batch_output/submission_{remote}.json").read_text())["id"] == remote


def test_nothing_is_sent_before_it_is_submitted(server: Any, seed: Seed) -> None:
    seed.build(small())
    with pytest.raises(BatchError, match=r"parts \[1\] of job 'job' are built and were never submitted"):
        seed.look()
    assert seed.frame() is None
    assert server.batches() == []
    assert server.stats()["n_requests"] == 0


def test_what_was_brought_home_is_a_cache_hit_for_extract(server: Any, seed: Seed) -> None:
    seed.build(small())
    seed.submit()
    seed.wait()
    option: dict[str, Any] = {"temperature": 0.0} if seed.backend == "openai" else {"max_tokens": 32000}
    asked = {"backend": seed.backend, "id_col": "id", "model": "sandbox-rules", **option}
    assert small().ie.extract(PROMPT, **asked)["tone"].tolist() == TONES
    assert lmsyz.last_run().counts.n_cached == 3


def test_an_anthropic_frame_can_be_retrieved_without_a_check(server: Any) -> None:
    seed = Seed(backend="anthropic", kind=lmsyz.AnthropicBatchExtractor, root="jobs")
    server.set_faults(batch_s=1000)
    seed.build(small())
    seed.submit()
    assert seed.frame() is None
    server.advance(1000)
    assert len(seed.frame()) == 3


# --- building -------------------------------------------------------------------------------------------------------


def test_the_request_holds_what_the_seeds_parameters_say(server: Any, seed: Seed) -> None:
    seed.build(numbered(7), chunk_size=3)
    bodies = seed.bodies()
    assert len(bodies) == 3
    key, value = ("temperature", 0.0) if seed.backend == "openai" else ("max_tokens", 32000)
    assert [b[key] for b in bodies] == [value] * 3
    rows = [row for b in bodies for row in json.loads(b["messages"][-1]["content"])]
    assert {(r["input_id"], r["input_text"]) for r in rows} == set(
        numbered(7).astype(str).itertuples(index=False, name=None)
    )


def test_a_model_that_takes_no_temperature_is_sent_none(server: Any) -> None:
    seed = Seed(backend="openai", kind=lmsyz.OpenAIBatchExtractor, root="jobs")
    seed.build(small(), model_name="gpt-5-mini")
    assert ["temperature" in b for b in seed.bodies()] == [False]


def test_a_draft_is_built_anew_with_another_prompt_and_fewer_requests(server: Any, seed: Seed) -> None:
    seed.build(numbered(6), chunk_size=1)
    seed.build(numbered(4), prompt=PROMPT.replace("Code", "Find"), chunk_size=2)
    assert len(seed.bodies()) == 2
    assert "Find the tone" in json.dumps(seed.bodies()[0])
    seed.submit()
    seed.wait()
    assert len(seed.frame()) == 4
    assert paid(server) == 4


def test_another_prompt_for_a_job_that_was_submitted_is_refused(server: Any, seed: Seed) -> None:
    seed.build(small())
    seed.submit()
    with pytest.raises(UsageError, match=r"'job' asks something else \(prompt changed\)"):
        seed.build(small(), prompt="Another.")
    seed.wait()
    assert len(seed.frame()) == 3


def test_files_of_another_program_are_left_alone(server: Any, seed: Seed) -> None:
    theirs = seed.folder / "batch_output" / "submission_batch_1.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("{}")
    with pytest.raises(UsageError, match="without a ledger"):
        seed.build(small())
    assert [p for p in seed.folder.rglob("*") if p.is_file()] == [theirs]


def test_many_requests_make_several_files_and_batches(server: Any) -> None:
    steps = lmsyz.OpenAIBatchExtractor("jobs", max_requests_per_batch=2)
    steps.create_batch_jsonl(numbered(9), "id", "text", PROMPT, "job", "sandbox-rules", chunk_size=2)
    assert [Path("jobs/job/batch_input", f"batch_{n}.jsonl").exists() for n in (1, 2, 3, 4)] == [True] * 3 + [False]
    steps.submit_batches("job")
    assert len(list(Path("jobs/job/batch_output").glob("submission_*.json"))) == 3
    steps.check_batch_status("job", continuous=True, interval=0.05)
    assert len(steps.retrieve_results_as_dataframe("job")) == 9


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda s: s.build(small().assign(id=1)), "more than once"),
        (lambda s: s.build(small().drop(columns="text")), "has no column 'text'"),
        (lambda s: s.build(small(), chunk_size=0), "chunk_size must be"),
        (lambda s: s.build(small().head(0)), "no rows"),
        (lambda s: s.made().retrieve_results_as_dataframe("../up"), "cannot be a folder's name"),
        (lambda s: s.submit(), "there is no batch job"),
    ],
)
def test_bad_input_is_refused_before_a_file_is_made(
    server: Any, seed: Seed, wrong: Callable[[Seed], Any], message: str
) -> None:
    with pytest.raises((UsageError, BatchError), match=message):
        wrong(seed)
    assert not Path("jobs").exists()
    assert server.stats()["n_requests"] == 0


def test_a_bad_size_or_a_missing_key_is_one_clear_error(seed: Seed) -> None:
    with pytest.raises(UsageError, match="max_requests_per_batch must be"):
        lmsyz.OpenAIBatchExtractor(max_requests_per_batch=0)
    with pytest.raises(MissingKeyError, match=f"{seed.backend.upper()}_API_KEY"):
        seed.build(small())


# --- nothing twice --------------------------------------------------------------------------------------------------


def test_every_step_can_be_repeated_and_nothing_is_paid_twice(server: Any, seed: Seed) -> None:
    for _ in range(2):
        seed.build(small())
    for _ in range(2):
        seed.submit()
    seed.build(small())
    seed.submit()
    for _ in range(2):
        seed.wait()
    seed.build(small())
    seed.submit()
    assert len(server.batches()) == 1
    assert paid(server) == 3
    assert seed.frame()["tone"].tolist() == TONES


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["upload", "create"])
def test_a_submission_that_dies_on_the_way_is_gone_on_with(
    server: Any, seed: Seed, step: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = OpenAIBatches if seed.backend == "openai" else AnthropicBatches
    real = getattr(kind, step)

    def dying(*args: Any) -> Any:
        if when == "after":
            real(*args)
        raise KeyboardInterrupt

    seed.build(small())
    with monkeypatch.context() as patch:
        patch.setattr(kind, step, dying)
        with pytest.raises(KeyboardInterrupt):
            seed.submit()
    if (step, when) == ("create", "after"):
        server.advance(1)  # Anthropic keeps nothing of ours: its results tell whose batch it is
    seed.submit()
    seed.wait()
    assert seed.frame()["tone"].tolist() == TONES
    assert len(server.batches()) == 1
    assert paid(server) == 3


def test_where_nobody_can_tell_whether_a_batch_was_created_the_submission_says_so(server: Any) -> None:
    seed = Seed(backend="anthropic", kind=lmsyz.AnthropicBatchExtractor, root="jobs")
    server.set_faults(batch_s=1000, create_timeout=1.0)
    seed.build(small())
    with pytest.raises(ProviderError):
        seed.submit()
    server.set_faults(batch_s=1000)
    with pytest.raises(BatchError, match=r"part 1 of job 'job' may have been created.*BatchJob.load\('job'"):
        seed.submit()
    server.advance(1000)
    assert seed.submit() == server.batches()[0]["id"]
    assert len(seed.frame()) == 3
    assert paid(server) == 3


def test_rows_without_an_answer_are_left_out_logged_and_built_again(
    server: Any, seed: Seed, caplog: pytest.LogCaptureFixture
) -> None:
    server.set_faults(batch_s=0.05, batch_errors=0.5)
    seed.build(numbered(20), chunk_size=1)
    seed.submit()
    seed.wait()
    with caplog.at_level(logging.WARNING):
        first = seed.frame()
    assert 0 < len(first) < 20
    assert f"{20 - len(first)} of 20 rows have no answer" in caplog.text
    server.set_faults(batch_s=0.05)
    seed.build(numbered(20), chunk_size=1)
    seed.submit()
    seed.wait()
    assert seed.frame()["input_id"].tolist() == [str(i) for i in range(20)]
    assert paid(server) == 20


def test_rows_of_an_earlier_frame_stay_in_the_results(server: Any, seed: Seed) -> None:
    seed.build(numbered(4))
    seed.submit()
    seed.wait()
    seed.build(numbered(3, first=4))
    seed.submit()
    seed.wait()
    assert sorted(seed.frame()["input_id"]) == [str(i) for i in range(7)]
    assert paid(server) == 7


def test_processed_rows_are_asked_again_only_on_demand(server: Any) -> None:
    seed = Seed(backend="openai", kind=lmsyz.OpenAIBatchExtractor, root="jobs")
    for exclude, n in ((True, 3), (True, 3), (False, 6)):
        seed.build(small(), exclude_processed=exclude)
        seed.submit()
        seed.wait()
        assert paid(server) == n
    assert len(seed.frame()) == 3


def test_rows_asked_again_on_demand_are_not_answered_by_what_was_stored_before(server: Any) -> None:
    seed = Seed(backend="openai", kind=lmsyz.OpenAIBatchExtractor, root="jobs")
    seed.build(small())
    seed.submit()
    seed.wait()
    seed.build(small(), exclude_processed=False)
    server.set_faults(batch_s=0.05, batch_errors=1.0)
    seed.submit()
    assert seed.frame() is None
    seed.wait()
    assert seed.frame() is None


def test_a_jobs_own_answers_count_before_newer_ones_to_another_prompt(server: Any, seed: Seed) -> None:
    other = replace(seed, root="others")
    for steps, prompt in ((seed, PROMPT), (other, PROMPT.replace("tone", "mood"))):
        steps.build(small(), prompt)
        steps.submit()
        steps.wait()
    ledger = Ledger.load(seed.folder.absolute())
    ledger.ignore_prompt = True  # as df.ie.batch(..., job_id="job", ignore_prompt_hash=True) leaves it
    ledger.save()
    assert list(seed.frame()["tone"]) == list(lmsyz.BatchJob.load("job", batch_root_dir="jobs").results()["tone"])
    assert list(seed.frame()["tone"]) == TONES


def test_a_cancelled_batch_tells_its_state_in_anthropics_words(server: Any) -> None:
    seed = Seed(backend="anthropic", kind=lmsyz.AnthropicBatchExtractor, root="jobs")
    server.set_faults(batch_s=1000)
    seed.build(small())
    seed.submit()
    lmsyz.BatchJob.load("job", batch_root_dir="jobs").cancel()
    assert seed.look() in ("canceling", "ended")
    server.advance(1000)
    assert seed.wait() == "ended"


def test_a_job_that_is_not_there_has_no_results(seed: Seed, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert seed.frame() is None
    assert "there is no batch job in" in caplog.text
