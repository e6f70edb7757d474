"""Runs the project with MLflow's own runner, reports its progress, and delivers the model."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import signal
import sys
import traceback
from typing import Any

from legion_mlflow.inside.store import Store, open_store
from legion_mlflow.protocol import EXIT_REFUSED, Context, Events, Result
from legion_mlflow.refusal import ENVIRONMENT, TOOLCHAIN, Refusal


def main(environment: str, toolchain: str) -> int:
    """Runs the training and returns its exit code.

    `environment` is "toolchain" or "project". `toolchain` is the prefix of the toolchain's environment.
    """
    context = Context.from_environment(os.environ)
    run = _Attempt(context, Events(context.events), environment, toolchain)
    code = run.execute()
    run.result.write(context.result)
    return code


class _Attempt:
    """One attempt of a training."""

    def __init__(self, context: Context, events: Events, environment: str, toolchain: str) -> None:
        self.context = context
        self.events = events
        self.result = Result(environment={"python": platform.python_version(), "from": environment})
        self.toolchain = toolchain
        self.harvester: Any = None
        self.process: Any = None
        self.terminated = False
        # The status of the MLflow run when the code ended. It is RUNNING if the code itself set none.
        self.ended_as = "RUNNING"
        self.store: Store | None = None
        # Removes MLflow's own variable from the command's environment: the id of the experiment is enough there.
        named = os.environ.pop("MLFLOW_EXPERIMENT_NAME", "")
        self.experiment = context.argument("experiment") or named or "Default"

    def execute(self) -> int:
        """Runs the whole attempt, from the store to the model, and returns its exit code."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            import mlflow

            from legion_mlflow.inside import remarks

            attempt = self.context.training.get("attempt", 1)
            self.store = open_store(self.context.work, attempt, os.environ, self.toolchain)
            if self.store.ignored:
                self.events.notice(
                    "TrackingUriIgnored",
                    f"MLFLOW_TRACKING_URI is {self.store.ignored}, but only an http address is used. "
                    "The run has a store of its own",
                )
            client, experiment = self._connect(mlflow)
            code = self._run_project(client, experiment)
            runs = self.harvester.finish()
            self._describe(runs, mlflow.__version__)
            if code == 0:
                self._take_model(client, runs)
                remarks.add(client, runs, self.ended_as, self.store, self.context, self.result)
            return code
        except Refusal as refusal:
            where = f"{refusal.field}: " if refusal.field else ""
            print(f"legion-mlflow: {where}{refusal.message}. {refusal.remedy}", file=sys.stderr, flush=True)
            self.result.error = refusal.document()
            return EXIT_REFUSED
        except Exception as error:
            # A full disk, a broken store: without a result document the status would not show it.
            traceback.print_exc()
            self.result.error = Refusal(
                "ToolchainFailed",
                f"the toolchain itself failed: {type(error).__name__}: {str(error)[:500]}",
                remedy="The log has the whole trace. Train again. If it happens again, report it.",
                origin=TOOLCHAIN,
            ).document()
            return EXIT_REFUSED

    def _on_signal(self, number: int, _frame: Any) -> None:
        # The run is harvested, and ends with its command. MLflow itself would exit here and leave the command running.
        self.terminated = True
        if self.process is None or self.process.poll() is not None:
            return
        if os.getpgrp() != os.getpid():
            self.process.send_signal(number)
            return
        # MLflow runs a command through bash. bash exits at the signal and does not pass it on to its child.
        handler = signal.signal(number, signal.SIG_IGN)
        os.killpg(0, number)
        signal.signal(number, handler)

    def _connect(self, mlflow: Any) -> tuple[Any, str]:
        """Returns the client and the id of the experiment."""
        from mlflow.exceptions import MlflowException

        assert self.store is not None, "opened before"
        mlflow.set_tracking_uri(self.store.uri)
        try:
            client = mlflow.MlflowClient()
            found = client.get_experiment_by_name(self.experiment)
            if found is not None:
                return client, found.experiment_id
            location = None
            if self.store.directory is not None:
                location = str(self.store.directory / "artifacts" / "experiment")
            return client, client.create_experiment(self.experiment, artifact_location=location)
        except (MlflowException, OSError) as error:
            raise Refusal(
                "TrackingServerUnavailable",
                f"the tracking server {self.store.address} does not answer: "
                + str(error).replace(self.store.uri, self.store.address)[:300],
                "spec.env",
                "Check MLFLOW_TRACKING_URI and its credentials in spec.env. Without it the run has a store of its own.",
                ENVIRONMENT,
            ) from error

    def _run_project(self, client: Any, experiment: str) -> int:
        """Runs the entry point and returns its exit code, or 128 plus the number of the signal that ended it."""
        import mlflow.projects
        from mlflow.exceptions import MlflowException
        from mlflow.projects.backend import local

        from legion_mlflow.inside import failure
        from legion_mlflow.inside.harvest import Harvester
        from legion_mlflow.inside.lineage import close_dead_attempts, mark
        from legion_mlflow.inside.tee import StderrTail

        create, submitted = local.get_or_create_run, local.LocalSubmittedRun
        training = self.context.training

        def created(*arguments: Any, **keywords: Any) -> Any:
            run = create(*arguments, **keywords)
            mark(client, run.info.run_id, training)
            close_dead_attempts(client, experiment, run.info.run_id, training)
            self.harvester = Harvester(client, self.store, run.info.run_id, self.events)
            self.harvester.start()
            return run

        class Submitted(submitted):  # type: ignore[misc, valid-type]
            def __init__(inner, run_id: str, process: Any) -> None:
                super().__init__(run_id, process)
                self.process = process
                if self.terminated:
                    process.terminate()

            def wait(inner) -> bool:
                succeeded = super().wait()
                # MLflow now sets the run to FINISHED or FAILED, by the exit code and over what the code itself set.
                with contextlib.suppress(MlflowException):
                    self.ended_as = client.get_run(inner.run_id).info.status
                return succeeded

        # MLflow's local backend reports neither the run before the command starts nor the command's exit code.
        local.get_or_create_run, local.LocalSubmittedRun = created, Submitted
        logging.getLogger("mlflow.projects").setLevel(logging.WARNING)
        recorder = failure.Recorder(self.context.work)
        with StderrTail() as tail, recorder.installed():
            try:
                # MLflow takes a project as a URI, where a `#` begins a subdirectory. A path may have one.
                os.chdir(self.context.source)
                mlflow.projects.run(
                    ".",
                    entry_point=self.context.entrypoint,
                    parameters=dict(self.context.hyper_parameters),
                    experiment_id=experiment,
                    env_manager="local",
                    run_name=training.get("pod"),
                )
            except MlflowException as error:
                if self.process is None or self.process.returncode in (None, 0):
                    raise Refusal("ProjectRejected", f"MLflow refuses the project: {str(error)[:600]}") from error
            finally:
                local.get_or_create_run, local.LocalSubmittedRun = create, submitted
        code = self.process.returncode
        # What the code raises after a signal from outside is no cause.
        if code != 0 and not self.terminated:
            self.result.error = failure.explain(recorder, tail.text(), code, self.context)
        return 128 - code if code < 0 else code

    def _describe(self, runs: list[Any], version: str) -> None:
        assert self.store is not None, "opened before"
        info = runs[0].info
        uri = ""
        if not self.store.is_private:
            uri = f"{self.store.address.rstrip('/')}/#/experiments/{info.experiment_id}/runs/{info.run_id}"
        self.result.external = {
            "system": "mlflow",
            "version": version,
            "id": info.run_id,
            "name": info.run_name or "",
            "experiment": self.experiment,
            "uri": uri,
            "otherRuns": len(runs) - 1,
        }

    def _take_model(self, client: Any, runs: list[Any]) -> None:
        from legion_mlflow.inside import artifacts, models, package

        found = models.logged(client, runs)
        chosen = models.choose(found, runs, self.context)
        if chosen is None:
            self.result.notice("NoModel", "the run logged no model. spec.arguments.requireModel is false")
        else:
            package.write(chosen, self.context, self.store, self.result)
            choice = None if self.context.argument("model") else models.several(found, chosen)
            if choice:
                self.result.notice("SeveralModels", choice)
        artifacts.collect(runs, found, chosen, self.store, self.context, self.result)
