"""The tables of a run in Markdown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from figures import Samples, Spread, spread
from goals import Verdict, verdicts
from load import LOADS
from measure import FRONT_LOADS, FRONT_PAIRS, Start
from servers import Server

BEGIN = "<!-- results:begin -->"
END = "<!-- results:end -->"


@dataclass
class Report:
    """What the tables are made from."""

    facts: dict[str, str]
    models: list[str]
    servers: list[Server]
    samples: Samples
    front: Samples
    starts: dict[tuple[str, str], Start]
    # Reasons, by model and server.
    failed: dict[tuple[str, str], str]
    # Reasons, by server: such as that it cannot be installed.
    missing: dict[str, str] = field(default_factory=dict)
    # Servers that were not chosen.
    left_out: list[Server] = field(default_factory=list)

    def markdown(self) -> str:
        parts = [table(["", ""], [[key, value] for key, value in self.facts.items()])]
        for model in self.models:
            parts += self.of_model(model)
        parts += [self.of_front(), self.of_goals(), *self.remarks()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def of_model(self, model: str) -> list[str]:
        heading = ["server", *(load.key for load in LOADS)]

        def rows(cell: Callable[[Server, str], str], with_reasons: bool = False) -> list[list[str]]:
            result = []
            for server in self.servers:
                reason = self.reason(model, server)
                if not reason:
                    result.append([server.title, *(cell(server, load.key) for load in LOADS)])
                elif with_reasons:
                    result.append([server.title, reason])
            return result

        def rate(server: Server, load: str) -> str:
            samples = self.samples.of(model, server.key, load)
            mark = " *" if any(sample.is_noisy for sample in samples) else ""
            return cell_of(self.samples.rate(model, server.key, load)) + mark

        def latency(server: Server, load: str) -> str:
            samples = self.samples.of(model, server.key, load)
            p50, p99 = spread(s.p50_ms for s in samples), spread(s.p99_ms for s in samples)
            return f"{number(p50.median)}, {number(p99.median)}" if p50 and p99 else "-"

        def ratio(server: Server, load: str) -> str:
            return cell_of(self.samples.ratio(model, server.key, "mlflow", load))

        parts = [
            f"### Model: {model}",
            "Requests per second: median (smallest to largest)",
            table(heading, rows(rate, with_reasons=True)),
        ]
        if self.samples.of(model, "mlflow", LOADS[0].key):
            parts += ["Times the rate of `mlflow models serve` in the same round", table(heading, rows(ratio))]
        parts += ["Latency in ms: medians of p50 and p99", table(heading, rows(latency))]
        parts += ["Starts and memory", self.of_starts(model)]
        return parts

    def of_starts(self, model: str) -> str:
        heading = ["server", "seconds to the first prediction", "processes", "PSS idle, MB", "PSS after load, MB"]
        rows = []
        for server in self.servers:
            start = self.starts.get((model, server.key))
            if start is None or self.reason(model, server):
                continue
            memory = [f"{start.idle_mb:.0f}", f"{start.loaded_mb:.0f}"]
            rows.append([server.title, cell_of(spread(start.seconds)), str(start.processes), *memory])
        return table(heading, rows)

    def of_front(self) -> str:
        keys = [load.key for load in FRONT_LOADS]
        rows = []
        for pair, title in FRONT_PAIRS.items():
            for server, name in (("legion", "legion-server"), ("echo", "bare echo")):
                rates = [cell_of(self.front.rate(pair, server, key)) for key in keys]
                rows.append([title, name, *rates])
        failed = self.failed.get(("front", "legion"))
        if failed:
            return f"### The front alone\n\nFailed: {failed}"
        if not self.front.all:
            return ""
        heading = ["request", "server", *keys]
        return f"### The front alone\n\nRequests per second: median (smallest to largest)\n\n{table(heading, rows)}"

    def of_goals(self) -> str:
        rows = []
        for verdict in verdicts(self.samples, self.front, self.models):
            words = {True: "met", False: "not met", None: "not measured"}[verdict.is_met]
            rows.append([verdict.goal, verdict.model, figure(verdict), words])
        return f"### Goals\n\n{table(['goal', 'model', 'measured', ''], rows)}"

    def remarks(self) -> list[str]:
        """Returns what a reader must know about the tables."""
        lines = []
        noisy = [s for s in [*self.samples.all, *self.front.all] if s.is_kept and s.is_noisy]
        if noisy:
            times = f"{len(noisy)} repetitions in all"
            lines.append(f"\\* Other work took more than a tenth of a core, also when repeated ({times}).")
        if self.left_out:
            lines.append(f"Not part of this run: {', '.join(f'`{server.key}`' for server in self.left_out)}.")
        return lines

    def reason(self, model: str, server: Server) -> str:
        """Returns why a row has no figures, or nothing."""
        if server.key in self.missing:
            return f"not measured: {self.missing[server.key]}"
        failed = self.failed.get((model, server.key))
        return f"failed: {failed}" if failed else ""


def figure(verdict: Verdict) -> str:
    return cell_of(verdict.figure) + (f" beside {verdict.remark}" if verdict.remark else "")


def number(value: float) -> str:
    """Returns a number with three digits that say something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell_of(value: Spread | None) -> str:
    if value is None:
        return "-"
    if value.least == value.most:
        return number(value.median)
    return f"{number(value.median)} ({number(value.least)} to {number(value.most)})"


def table(heading: list[str], rows: list[list[str]]) -> str:
    """Returns a table. Short rows are filled up."""
    width = len(heading)
    lines = ["| " + " | ".join(heading) + " |", "|" + "---|" * width]
    for row in rows:
        cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in row] + [""] * (width - len(row))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def replaced(page: str, results: str) -> str:
    """Returns a page with other results between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{results.strip()}\n\n{END}{after}"
