"""`use_ema`: at the end of `fit`, weights become the averages that the optimiser kept of them."""
import keras

from private_keras.cluster import Cluster
from private_keras.cluster.shares import Share
from private_keras.models.training.holdings import Held
from private_keras.models.training.jobs import Jobs
from private_keras.plan.builder import PlanBuilder
from private_keras.tracing.names import path_of


def finish(model: keras.Model, jobs: Jobs, cluster: Cluster) -> None:
    """What Keras' `optimizer.finalize_variable_values` does. Cost: one truncation of each average."""
    optimizer = model.optimizer
    if not getattr(optimizer, "use_ema", False) or not optimizer.built:
        return
    pairs = []
    for weight, average in zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True):
        held, mean = jobs.holdings.find(weight), jobs.holdings.find(average)
        if held is not None and mean is not None and mean.secret:
            pairs.append((held, mean))
    if pairs:
        _copy(model, jobs, cluster, pairs)


def _copy(model: keras.Model, jobs: Jobs, cluster: Cluster, pairs: list[tuple[Held, Held]]) -> None:
    b = PlanBuilder()
    for weight, mean in pairs:
        s = mean.state
        value = b.input(s.name, s.shape, s.fraction, "model-owner", path_of(s.variable.path))
        b.output(b.add("truncate", value, bits=s.fraction - weight.state.fraction), weight.state.name, [])
    plan = b.build(model.name, "train")
    kept = cluster.run(plan, {mean.state.name: mean.share.handle for _, mean in pairs})
    for weight, _ in pairs:
        jobs.holdings.place(weight.state.name, Share(cluster, kept[weight.state.name]))
