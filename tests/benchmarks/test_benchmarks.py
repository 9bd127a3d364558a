"""The benchmark is run by hand; that it can be is tested."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

from tests.benchmarks import report
from tests.benchmarks.common import Line
from tests.benchmarks.contestants import CONTESTANTS, DRIVERS, field_of
from tests.benchmarks.plan import LARGE, README, SCENARIOS
from tests.benchmarks.sending import counts
from tests.benchmarks.stand_in import running


def test_the_readme_and_the_long_ones_name_scenarios_that_there_are() -> None:
    assert set(README) | set(LARGE) <= set(SCENARIOS)
    assert not set(README) & set(LARGE)


def test_every_contestant_has_a_driver() -> None:
    assert all((DRIVERS / f"{who.driver}.py").exists() for who in CONTESTANTS)


def test_the_bare_loop_and_lmsyz_answer_every_text_and_only_lmsyz_answers_from_its_store(tmp_path: Path) -> None:
    with field_of(None, {}) as field:
        everyone = field.of("overhead")
        assert [who.name for who in everyone] == [
            "bare SDK loop", "lmsyz, 5 rows a request", "lmsyz, 1 row a request",
        ]  # fmt: skip
        asked = []
        for who in (everyone[0], everyone[1]):
            with running(log=True) as url:
                assert field.run(who, url, tmp_path, n=12, workers=2, runs=2)["n_good"] == [12, 12]
                asked.append((counts(url)["requests"], counts(url)["rows_asked"], counts(url)["rows_asked_twice"]))
    assert asked == [(24, 24, 12), (3, 12, 0)]


def test_the_stand_in_answers_a_text_without_an_id_with_one_bare_row() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "Sentence number 4 says so."}]}).encode()
    with running() as url, urllib.request.urlopen(f"{url}/v1/chat/completions", body) as response:
        content = json.load(response)["choices"][0]["message"]["content"]
    assert json.loads(content)["tone"] == "positive"


def test_peers_that_cannot_be_installed_are_named_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "a-file"
    file.write_text("no folder")
    with field_of(str(file), dict(os.environ)) as field:
        assert set(field.missing) == {who.package for who in CONTESTANTS if who.package}
        assert all(field.missing.values())
        assert {who.package for who in field.of("killed")} == {""}


def test_figures_are_saved_with_the_machine_and_shown_as_tables(tmp_path: Path) -> None:
    found = {
        "killed": [Line("twice", "1.10", who="lmsyz", figures={"ratio": 1.1}), Line("twice", "3.00", who="peer")],
        "import": [Line("import", "0.98", "at most 1.3", True, "of 300 ms")],
    }
    report.save(tmp_path / "figures.json", report.machine({"peer": "1.0"}), found)
    saved = json.loads((tmp_path / "figures.json").read_text())
    assert saved["machine"]["peers"] == {"peer": "1.0"}
    assert [line["scenario"] for line in saved["lines"]] == ["killed", "killed", "import"]
    assert saved["lines"][0]["figures"] == {"ratio": 1.1}
    table = report.tables(found).splitlines()
    assert table[:4] == ["|  | twice |", "| --- | --- |", "| lmsyz | 1.10 |", "| peer | 3.00 |"]
    assert table[-1] == "| import | 0.98 | of 300 ms |"
