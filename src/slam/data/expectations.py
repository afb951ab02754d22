"""The Great Expectations suites that the shards' metadata must meet. The only door to Great Expectations.

Two suites: `rows`, run on each shard's rows, and `shards`, run once on a table with one row a shard (conservation
of rows, pictures that are missing, keys that come twice). Each shard is an asset and a run of its own: several
batches on one asset collapse to one result in a checkpoint, and a bad shard then passes.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read by the import below

import great_expectations as gx  # noqa: E402
import great_expectations.expectations as gxe  # noqa: E402
import pandas as pd  # noqa: E402
from great_expectations.core import RunIdentifier  # noqa: E402
from great_expectations.expectations.row_conditions import Column  # noqa: E402

from slam.data.records import DOWNLOAD, STATUS  # noqa: E402

SOURCE = "img2dataset"
SCORES = (-2.0, 12.0)  # the predictors are affine: nominally 1 to 10, with a little on either side
NONE = "none"  # in the table of shards: no such key
EXAMPLES = 5  # values shown in the documents and in an error


def _rows() -> list[gxe.Expectation]:
    had = {"row_condition": Column("status") == "success"}  # only these have a picture
    sizes = "img2dataset leaves sizes empty with --disable_all_reencoding: keep WIDTH and HEIGHT as additional columns"
    hashes = "run img2dataset with --compute_hash sha256, its default"
    scored = "give every row a score, leave the row out, or let `slam score` compute it (`score` in the profile)"
    scale = "the score is expected on the scale 1 to 10"
    return [
        gxe.ExpectTableColumnsToMatchSet(
            column_set=["key", "status", "caption", "aesthetic", "width", "height", "sha256"], exact_match=False
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="key"),
        gxe.ExpectColumnValuesToBeUnique(column="key", notes="a key names one picture: make this shard again"),
        gxe.ExpectColumnValuesToBeInSet(column="status", value_set=list(STATUS)),
        # NaN passes a range, hence both
        gxe.ExpectColumnValuesToNotBeNull(column="aesthetic", notes=scored, **had),
        gxe.ExpectColumnValuesToBeBetween(column="aesthetic", min_value=SCORES[0], max_value=SCORES[1], notes=scale),
        *(gxe.ExpectColumnValuesToNotBeNull(column=side, notes=sizes, **had) for side in ("width", "height")),
        *(gxe.ExpectColumnValuesToBeBetween(column=side, min_value=1, **had) for side in ("width", "height")),
        gxe.ExpectColumnValuesToNotBeNull(column="sha256", notes=hashes, **had),
        gxe.ExpectColumnValuesToMatchRegex(column="sha256", regex="^[0-9a-f]{64}$", notes=hashes, **had),
    ]


def _shards() -> list[gxe.Expectation]:
    again = "the files of this shard do not belong together: make it again"
    equal = {"rows": "count in stats", "success": "successes in stats"} | {s: f"{s} in stats" for s in DOWNLOAD}
    none = {
        "rows without a picture": again,
        "pictures without a row": again,
        "keys of another shard": "two downloads were mixed: keys must be unique over all shards",
    }
    return [
        *(gxe.ExpectColumnPairValuesToBeEqual(column_A=a, column_B=b, notes=again) for a, b in equal.items()),
        *(gxe.ExpectColumnValuesToBeInSet(column=name, value_set=[NONE], notes=note) for name, note in none.items()),
    ]


def _built(suites: dict[str, list[dict]]) -> dict[str, list[gxe.Expectation]]:
    """Suites given as plain data: {"type": "expect_…", "kwargs": {…}, "notes": "…"}."""
    return {
        name: [
            getattr(gxe, "".join(map(str.title, e["type"].split("_"))))(**e["kwargs"], notes=e["notes"]) for e in suite
        ]
        for name, suite in suites.items()
    }


class Validation:
    """One validation of a data set: `check` each table, then `build` the documents."""

    def __init__(self, further: dict[str, list[dict]] | None = None) -> None:
        self.context = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = {"globally": False}
        self.run = RunIdentifier(run_name="filter", run_time=datetime.now(UTC))
        self.suites = {
            name: self.context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
            for name, expectations in {"rows": _rows(), "shards": _shards(), **_built(further or {})}.items()
        }
        self.checked: dict[str, bool] = {}  # asset -> success

    def check(self, suite: str, asset: str, table: pd.DataFrame, index: str) -> list[str]:
        """Run `suite` on `table`; a sentence per expectation that failed. `index`: the column that names a row."""
        source = self.context.data_sources.add_pandas(SOURCE)
        batch = source.add_dataframe_asset(name=asset).add_batch_definition_whole_dataframe("whole")
        definition = self.context.validation_definitions.add(
            gx.ValidationDefinition(name=asset, data=batch, suite=self.suites[suite])
        )
        outcome = definition.run(
            batch_parameters={"dataframe": table},
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": EXAMPLES,
                "unexpected_index_column_names": [index],
            },
            run_id=self.run,
        )
        self.context.data_sources.delete(SOURCE)  # it keeps its tables in memory
        self.checked[asset] = bool(outcome.success)
        return [f"{asset}: {_sentence(r.to_json_dict(), index)}" for r in outcome.results if not r.success]

    def build(self, docs: Path) -> list[tuple[str, bool, Path]]:
        """Write the HTML documents into `docs`; returns each table's name, whether it passed, and its page."""
        backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.absolute())}
        self.context.add_data_docs_site("docs", {"class_name": "SiteBuilder", "store_backend": backend})
        self.context.build_data_docs(["docs"])
        pages = {path.stem.removeprefix(f"{SOURCE}-"): path for path in docs.glob("validations/**/*.html")}
        assert pages.keys() == self.checked.keys(), "every table has its own result"
        return [(asset, passed, pages[asset]) for asset, passed in self.checked.items()]


def _sentence(result: dict, index: str) -> str:
    config, found = result["expectation_config"], result["result"]
    arguments = {k: v for k, v in config["kwargs"].items() if k not in ("batch_id", "row_condition")}
    told = ", ".join(f"{key} {value}" for key, value in arguments.items())
    note = f": {config['notes']}" if config.get("notes") else ""
    what = f"{config['type'].replace('_', ' ')} ({told})"
    if result["exception_info"].get("raised_exception", True) and not found:
        return f"{what} could not be evaluated: {result['exception_info']}"
    if "unexpected_count" not in found:
        return f"{what}: found {found.get('observed_value')}{note}"
    rows = [str(row[index]) for row in found.get("partial_unexpected_index_list", [])]
    values = found.get("partial_unexpected_list", [])
    examples = "; ".join(f"{index} {row}: {value!r}" for row, value in zip(rows, values, strict=False))
    return f"{what}: {found['unexpected_count']} of {found['element_count']} rows are not, e.g. {examples}{note}"
