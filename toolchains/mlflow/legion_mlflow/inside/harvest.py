"""Copies facts from the tracking store to the event stream during the run."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, ViewType

from legion_mlflow.inside.store import Store
from legion_mlflow.protocol import Events, dataset_event, metric_event, pair_event

PARENT_TAG = "mlflow.parentRunId"
# Tags of MLflow and Legion themselves. They are for the series and not for the status. The protocol does this with
# every event of a child, so here the child is the run itself.
BOOKKEEPING = ("mlflow.", "legion.")
# The stream promises two seconds from fact to event. A harvest may take as long as the pause before it.
PAUSE = 0.9


class Harvester:
    """Emits new facts of the run and of all runs below it. It emits each fact once."""

    def __init__(self, client: MlflowClient, store: Store, run_id: str, events: Events) -> None:
        self._client = client
        self._store = store
        self._run_id = run_id
        self._events = events
        self._points: dict[tuple[str, str], set[tuple[int, int, str]]] = {}
        self._latest: dict[tuple[str, str], tuple[int, int, str]] = {}
        self._pairs: dict[tuple[str, str, str], str] = {}
        self._datasets: set[tuple[str, str]] = set()
        self._children: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="legion-harvest", daemon=True)

    def start(self) -> None:
        """Begins harvesting in the background."""
        self._thread.start()

    def finish(self) -> list[Run]:
        """Stops the background thread, harvests the rest, and returns every run of the tree, the main one first."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        return self._harvest(whole=True)

    def _loop(self) -> None:
        pause = PAUSE
        while not self._stop.wait(pause):
            started = time.monotonic()
            try:
                self._harvest(whole=False)
            except Exception as error:
                # A store may be locked or unavailable for a moment. The next harvest gets what is missed now. The last
                # harvest, in `finish`, lets errors through.
                self._events.progress(f"harvest postponed: {type(error).__name__}")
            # Reading long series takes time. Spend at most half of the time on it.
            pause = max(PAUSE, time.monotonic() - started)

    def _harvest(self, whole: bool) -> list[Run]:
        runs = self.runs()
        for run in runs:
            batch: list[dict[str, Any]] = []
            child = None if run.info.run_id == self._run_id else run.info.run_id
            if child is not None and self._children.get(child) != run.info.status:
                self._children[child] = run.info.status
                batch.append({"type": "child", "id": child, "name": run.info.run_name, "status": run.info.status})
            self._add_pairs(run, child, batch)
            if child is None:
                self._add_datasets(run, batch)
            self._add_metrics(run, child, batch, whole)
            self._events.emit_all(batch)
        return runs

    def runs(self) -> list[Run]:
        """Returns the main run and those below it. In a private store this is every run."""
        main = self._client.get_run(self._run_id)
        if self._store.is_private:
            experiments = [e.experiment_id for e in self._client.search_experiments(view_type=ViewType.ALL)]
            others = [r for r in self._search(experiments, "") if r.info.run_id != self._run_id]
            return [main, *sorted(others, key=lambda r: r.info.start_time or 0)]
        found = [main]
        for parent in found:
            query = f"tags.`{PARENT_TAG}` = '{parent.info.run_id}'"
            found += self._search([main.info.experiment_id], query)
        return found

    def _search(self, experiments: list[str], query: str) -> Iterable[Run]:
        token: str | None = None
        while True:
            page = self._client.search_runs(experiments, query, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _add_pairs(self, run: Run, child: str | None, batch: list[dict[str, Any]]) -> None:
        for kind, values in (("param", run.data.params), ("tag", run.data.tags)):
            for name, value in values.items():
                if self._pairs.get((run.info.run_id, kind, name)) == value:
                    continue
                self._pairs[run.info.run_id, kind, name] = value
                bookkeeping = kind == "tag" and name.startswith(BOOKKEEPING)
                batch.append(pair_event(kind, name, value, run.info.run_id if bookkeeping else child))

    def _add_datasets(self, run: Run, batch: list[dict[str, Any]]) -> None:
        inputs = getattr(run, "inputs", None)
        for used in inputs.dataset_inputs if inputs else []:
            dataset = used.dataset
            if (dataset.name, dataset.digest) not in self._datasets:
                self._datasets.add((dataset.name, dataset.digest))
                batch.append(dataset_event(dataset.name, dataset.digest, dataset.source))

    def _add_metrics(self, run: Run, child: str | None, batch: list[dict[str, Any]], whole: bool) -> None:
        # The private list has the latest point with its step and time. The public mapping has only values.
        for latest in run.data._metric_objs:
            key = (run.info.run_id, latest.key)
            mark = _point(latest)
            if not whole and self._latest.get(key) == mark:
                continue
            self._latest[key] = mark
            seen = self._points.setdefault(key, set())
            for metric in self._client.get_metric_history(run.info.run_id, latest.key):
                # The file store has a point twice if it was also logged for a model.
                if _point(metric) in seen:
                    continue
                seen.add(_point(metric))
                dataset = getattr(metric, "dataset_name", None)
                batch.append(metric_event(metric.key, metric.value, metric.step, metric.timestamp, child, dataset))


def _point(metric: Metric) -> tuple[int, int, str]:
    value = "NaN" if math.isnan(metric.value) else repr(metric.value)
    return metric.step, metric.timestamp, value
