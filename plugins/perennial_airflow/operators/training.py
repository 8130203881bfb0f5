"""Training: plan, features, fit, evaluate, gate, register, roll out or reject. Shared by ``train`` and ``retrain``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perennial.errors import UsageError
from perennial_airflow.links import MlflowLink, ReportLink
from perennial_airflow.operators.base import BranchStepOperator, StepOperator
from perennial_airflow.step import Step, live_specs

if TYPE_CHECKING:
    from perennial.training.evaluate import Evaluation
    from perennial.training.fit import Candidate
    from perennial.training.plan import TrainingPlan


def _plan(step: Step) -> TrainingPlan:
    from perennial.training.plan import TrainingPlan

    return TrainingPlan.from_dict(step.state.read("plan"))


def _snapshots(step: Step) -> tuple[dict[str, Any], dict[str, Any]]:
    from perennial.lake.table import Snapshot

    stored = step.state.read("snapshots")
    parts = [{k: Snapshot.from_dict(v) for k, v in stored[part].items()} for part in ("train", "holdout")]
    return parts[0], parts[1]


def _candidate(step: Step) -> Candidate:
    from perennial.training.fit import Candidate

    return Candidate(**step.state.read("candidate"))


def _evaluation(step: Step) -> Evaluation:
    from perennial.training.evaluate import Evaluation

    return Evaluation.from_dict(step.state.read("evaluation"))


class PlanOperator(StepOperator):
    """Decide which partitions train and which judge, as of the run's instant; keep the run's copy of the spec."""

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.training.plan import make_plan

        specs = live_specs(self.name)
        spec = specs.model(self.name)
        if step.key:
            step.require_key(specs.feed(spec.entity))
        step.skip_if_paused(self.name)
        window, seed = step.params.get("window"), step.params.get("seed")
        plan = make_plan(
            spec,
            specs.feeds,
            specs.folder_of("model", self.name),
            as_of=step.as_of(specs.feed(spec.entity)),
            window_days=int(window) if window else None,
            seed=int(seed) if seed is not None else None,
            dry_run=bool(step.params.get("dry_run")),
        )
        step.state.write("plan", plan.to_dict())
        for key, why in plan.missing.items():
            self.log.warning("partition %s is left out of training: %s", key, why)
        return {
            "as_of": plan.as_of.isoformat(),
            "train": [plan.train_keys[0], plan.train_keys[-1], len(plan.train_keys)],
            "holdout": [plan.holdout_keys[0], plan.holdout_keys[-1], len(plan.holdout_keys)],
            "missing": len(plan.missing),
            "seed": plan.seed,
            "dry_run": plan.dry_run,
        }


class FeaturesOperator(StepOperator):
    """Build the feature partitions that are missing or stale, and freeze what training and judging will read."""

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.training.data import snapshot_rows

        plan = _plan(step)
        done = plan.builder().ensure(
            [*plan.train_keys, *plan.holdout_keys],
            fence=step.fence,
            progress=lambda n, total: self.log.info("built %d of %d feature partitions", n, total),
        )
        parts = {"train": plan.train_keys, "holdout": plan.holdout_keys}
        frozen = {n: snapshot_rows(plan.spec, plan.feeds, plan.definition, keys) for n, keys in parts.items()}
        step.state.write("snapshots", {n: {k: s.to_dict() for k, s in v.items()} for n, v in frozen.items()})
        return {
            "built": len(done.built),
            "reused": len(done.reused),
            "rows": {n: v["features"].rows for n, v in frozen.items()},
            "sha256": {f"{n}.{k}": s.sha256 for n, v in frozen.items() for k, s in v.items()},
        }


class FitOperator(StepOperator):
    """Fit the estimator, calibrate drift, sign the bundle and log it to MLflow; a retry finds what was logged."""

    operator_extra_links = (MlflowLink(),)

    def step(self, step: Step) -> dict[str, str]:
        from perennial.registry.tracking import run_url
        from perennial.training.fit import fit
        from perennial_airflow import signing_key

        plan = _plan(step)
        signing_key.use_connection()
        train, holdout = _snapshots(step)
        say = lambda text: self.log.info("%s", text)  # noqa: E731
        candidate = fit(plan, train, holdout, step.actor, say, step.fence)
        step.state.write("candidate", candidate.to_dict())
        self.mlflow_url = run_url(candidate.run_id)
        return candidate.to_dict()


class EvaluateOperator(StepOperator):
    """Score the holdout with candidate and champion, and compute every gate. Writes the decision's page."""

    operator_extra_links = (ReportLink(),)

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.training.evaluate import evaluate, report

        plan = _plan(step)
        _, holdout = _snapshots(step)
        found = evaluate(plan, holdout, _candidate(step), step.ledger, step.fence, step.actor)
        step.fence()
        step.state.write("evaluation", found.to_dict())
        self.report_url = step.state.report("decision.html", report(plan, found))
        for r in found.results:
            self.log.info("%s: %s: %s", r.gate, r.verdict, r.reason)
        return {"verdict": found.verdict, "reason": found.reason[:500], "champion": found.champion}


class MetricGateOperator(BranchStepOperator):
    """Write every verdict to the ledger, and branch: ``register``, ``reject``, or ``report_only`` (a dry run)."""

    def step(self, step: Step) -> str:
        from perennial.training.evaluate import record

        plan, found = _plan(step), _evaluation(step)
        parts = dict(zip(("train", "holdout"), _snapshots(step), strict=True))
        data = {f"{part}.{name}": taken for part, group in parts.items() for name, taken in group.items()}
        record(plan, found, _candidate(step), step.ledger, step.actor, step.fence, data)
        self.log.info("%s: %s: %s", self.name, found.verdict, found.reason)
        for warning in found.warnings:
            self.log.warning("%s", warning)
        if plan.dry_run:
            return "report_only"
        return "register" if found.verdict == "pass" else "reject"


class RegisterOperator(StepOperator):
    """Verify the candidate and register it as a version in MLflow, once per run, with lineage and signature; announces
    ``<model>.version``."""

    operator_extra_links = (MlflowLink(),)

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.registry import tracking, versions
        from perennial.training.attest import record_signature, trust_tags
        from perennial.training.bundle import Bundle

        plan, found, candidate = _plan(step), _evaluation(step), _candidate(step)
        bundle = Bundle.open(self.name, candidate, actor=step.actor, fence=step.fence)
        tags = {
            **{k.replace(":", "."): str(v) for k, v in plan.digests.items()},
            "as_of": plan.as_of.isoformat(),
            "train_end": plan.train_end.isoformat(),
            "seed": str(plan.seed),
            "verdict": found.verdict,
            "dag_run": f"{step.actor.dag_id}/{step.actor.run_id}",
            **trust_tags(bundle),
        }
        snapshots = step.state.read("snapshots")
        tags |= {f"snapshot.{p}.{k}": s["sha256"] for p, group in snapshots.items() for k, s in group.items()}
        version = versions.register(
            self.name, candidate.run_id, candidate.model_id, tags, plan.spec.description, step.fence
        )
        record_signature(version, bundle, plan.as_of, step.ledger, step.actor, step.fence)
        tracking.finish(
            candidate.run_id, tags={"decision": "registered", "reason": found.reason, "version": version.version}
        )
        step.state.write("version", {"version": version.version})
        self.mlflow_url = tracking.run_url(candidate.run_id)
        return {"version": version.version, "model_id": candidate.model_id}


class StageCheckOperator(StepOperator):
    """Load the registered version in a fresh process: does it score its golden sample bit for bit, fast and small
    enough? If not the run ends here, and the champion stays."""

    operator_extra_links = (MlflowLink(),)

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.errors import StageError
        from perennial.registry import tracking, versions
        from perennial.registry.checklist import waivers
        from perennial.training.stage import record, stage_check

        plan = _plan(step)
        version = versions.get(self.name, step.state.read("version")["version"])
        self.mlflow_url = tracking.run_url(version.run_id)
        staged = stage_check(version, step.actor, step.fence)
        record(version, staged, plan.as_of, step.ledger, step.actor, step.fence)
        if not staged.passed and "stage_checked" not in waivers(plan.spec):
            raise StageError(f"{self.name} {staged.reason}; it is registered but may not serve, the champion stays")
        self.log.info("%s: %s", self.name, staged.reason)
        return {"verdict": staged.verdict, **staged.figures}


class ImmediateRolloutOperator(StepOperator):
    """Rollout ``immediate``: the version that passed becomes champion at once. Runs in a pool of one slot."""

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.registry import versions

        plan, found = _plan(step), _evaluation(step)
        version = step.state.read("version")["version"]
        before = versions.promote(
            self.name,
            version,
            expected=found.champion,
            reason=found.reason,
            as_of=plan.as_of,
            actor=step.actor,
            ledger=step.ledger,
            fence=step.fence,
        )
        return {"champion": version, "previous": before}


class RejectOperator(StepOperator):
    """Close the candidate's MLflow run with the verdict; nothing is registered."""

    operator_extra_links = (MlflowLink(),)

    ui_color = "#f6dfdc"

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.registry import tracking

        found, candidate = _evaluation(step), _candidate(step)
        word = "dry run" if _plan(step).dry_run else {"hold": "held"}.get(found.verdict, "rejected")
        step.fence()
        tracking.finish(candidate.run_id, tags={"decision": word, "reason": found.reason})
        self.mlflow_url = tracking.run_url(candidate.run_id)
        self.log.info("%s: %s: %s", self.name, word, found.reason)
        return {"decision": word, "reason": found.reason[:500]}


class GuardsOperator(BranchStepOperator):
    """May a retraining start at all: cooldown, budget, enough new labels? Branches to ``train`` or ``declined``."""

    def step(self, step: Step) -> str:
        from perennial.training.guards import check_guards, record_guards

        specs = live_specs(self.name)
        spec = specs.model(self.name)
        entity = specs.feed(spec.entity)
        if not step.key and not step.params.get("as_of"):
            raise UsageError(f"{step.actor.dag_id} needs a partition key or an as_of: fill in the form")
        if step.key:
            step.require_key(entity)
        step.skip_if_paused(self.name)
        as_of = step.as_of(entity)
        found = check_guards(spec, specs.feeds, as_of, step.ledger, step.actor)
        step.state.write("declined", [g.reason for g in found if not g.passed])
        record_guards(spec, found, as_of, step.ledger, step.actor, step.fence)
        for guard in found:
            self.log.info("%s: %s: %s", guard.name, "may start" if guard.passed else "declined", guard.reason)
        return "train.plan" if all(g.passed for g in found) else "declined"


class DeclinedOperator(StepOperator):
    """The end of a retraining that a guard declined; the reasons are in the ledger and in this task's log."""

    def step(self, step: Step) -> dict[str, Any]:
        reasons = step.state.read("declined")
        for reason in reasons:
            self.log.warning("%s is not retrained: %s", self.name, reason)
        return {"declined": reasons}
