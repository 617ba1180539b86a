"""What private models add to Keras' models."""
from typing import Any

from private_keras.cluster.planning import planned
from private_keras.forecast import Forecast, Machine, Network, forecast
from private_keras.layers.secure import PUBLIC
from private_keras.models.check import Check, check
from private_keras.models.display import as_html
from private_keras.models.execution import Execution
from private_keras.models.predict import predict
from private_keras.models.prepare import prepare
from private_keras.models.stock import StockReport
from private_keras.models.trainable import TrainableModel
from private_keras.plan.plan import Plan


class PrivateModel(TrainableModel):
    """Mixin for Keras models: `predict`, `fit` and `evaluate` on shares; never in the clear because they cannot.

    The caller holds the weights in the clear until they are trained, and gets the predictions. Servers see neither, nor
    the data: only shares. They do see the plan: the model's layers and shapes.
    """

    public = PUBLIC
    _execution_on_shares: Execution | None = None

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: str | int = "auto", steps: int | None = None,
        callbacks: list | None = None, *, to: str | None = None, name: str | None = None,
    ) -> Any:
        """Predictions for x, computed on shares; arguments and result as in Keras. Several threads may call it at once;
        their small batches then share jobs (docs/operations.md, "Predictions that share a job").

        Args:
            x: array, list or dict of arrays, `tf.data.Dataset`, `keras.utils.PyDataset` or generator of batches. Or
                secret tensors (`private_keras.share`), also mixed with arrays: what they hold cannot be looked at, so
                that values which fixed point cannot hold on their way are not noticed.
            batch_size: samples computed together, 32 by default; for arrays only. The last batch may be smaller.
            verbose: 0 for no progress bar.
            steps: batches to draw, for data without an end.
            callbacks: Keras callbacks.
            to: the party that predictions are opened to, instead of this client, who learns nothing of them. It calls
                `private_keras.receive("this-client/name")`.
            name: what they are called there.

        Returns:
            NumPy arrays in the structure of the model's outputs; with `to`, a `Delivery`. Off from Keras' predictions
            by the fixed-point arithmetic: see `check`.

        Raises:
            UnsupportedError: the model uses something that cannot run on shares; before anything is shared.
            InputError: data of the wrong shape, type or range; before it is shared.
            SecurityError: the policy of somebody's data or weights does not allow it.
            ClusterError: servers that cannot be reached or were lost.
        """
        return predict(self, self._on_shares(), x, batch_size, verbose, steps, callbacks, to, name)

    def predict_on_batch(self, x: Any) -> Any:
        """Predictions for one batch, computed on shares; as in Keras. Errors as in `predict`."""
        execution = self._on_shares()
        execution.look()
        return execution.run(x)

    def prepare(
        self, count: int = 1, batch_size: int | None = None, refill: bool = False, verbose: str | int = "auto"
    ) -> StockReport:
        """Lets the servers do ahead all of `count` predictions that needs no data: the helper's whole part, and half
        of the evaluators' products, which weights and masks decide. `predict` then takes one of them by itself for
        each batch of this size that it is given as arrays; one product for each layer and evaluator is left.

        Args:
            count: predictions that are to be ready; those that are ready already count, those beyond are let go of.
            batch_size: rows predicted together; 32 by default, as for `predict`. What is ready serves batches of this
                size alone: the last batch of data is smaller unless the size divides it.
            refill: whether predictions that were used are made anew from then on, in the background, until `prepare` is
                called with `refill=False`.
            verbose: 0 for no progress bar.

        Returns:
            What is ready now; prints as a table.

        Raises:
            UnsupportedError, InputError: as `predict`.
            ClusterError: no room for it on a server, or servers that cannot be reached or were lost.

        Leakage: servers know how many are ready, and which job uses one. Cost: a prediction without its rounds, and
        memory until it is used: of server 1 what `cost` says is sent ahead, less of server 0 (docs/performance.md).
        What is ready is gone when the weights change, or a server is started anew.
        """
        prepare(self._on_shares(), count, batch_size, refill, verbose)
        return self.stock()

    def stock(self) -> StockReport:
        """Which predictions `prepare` has made ready, for which batch sizes; prints as a table."""
        return self._on_shares().jobs.stock.report(self.name)

    def narrow(self, largest: float | None) -> None:
        """Makes predictions cheaper for inputs of a known size: comparisons look at no more bits than they need.

        The weights prove how large values can become behind such inputs; where they prove nothing, all stays as it is.
        A batch with larger inputs, and data that are shared already, which cannot be looked at, are predicted as ever.
        Training is not affected.

        Args:
            largest: bound on |x| for all inputs, 1.0 for images in [0, 1]; None for inputs of any size.

        Raises:
            InputError: not a number above 0, or None.

        Leakage: the plan says how many bits each comparison looks at, in steps of 4, so servers learn a bound on the
        values there, which weights decide, within a factor of 16; and whether a batch was within `largest`. Therefore
        it is not done by itself. Saves about a byte for each element and bit, of 65 for a comparison of 62 bits.
        """
        self._on_shares().narrow(largest)

    def plan(self, batch_size: int = 1) -> Plan:
        """What servers run for a batch of this size; `plan.describe()` lists who provides what and all that is opened.

        Raises:
            UnsupportedError: the model uses something that cannot run on shares.
        """
        return self._on_shares().traced(batch_size).plan

    def cost(
        self, batch_size: int = 1, network: str | Network = "local", machine: Machine | None = None
    ) -> Forecast:
        """Rounds, bytes and seconds per layer for a batch of this size, before anything runs.

        Args:
            batch_size: samples predicted together.
            network: "local", "lan", "wan" or `Network(rtt=seconds, bandwidth=bits per second)`.
            machine: how fast a server is, see `measure_machine`; without it, the machine of docs/performance.md.

        Raises:
            UnsupportedError: the model uses something that cannot run on shares.
            InputError: an unknown network.
        """
        return forecast(self.plan(batch_size), network, machine)

    def check(self, x_sample: Any = None) -> Check:
        """What cannot run on shares, and with a sample the ranges of values and the error to expect. Shares nothing.

        Args:
            x_sample: a batch of typical inputs, in any form that `predict_on_batch` takes.

        Returns:
            A report that prints. Nothing that is wrong with the model or the sample is raised.
        """
        return check(self, self._on_shares(), x_sample)

    def _repr_html_(self) -> str:
        execution = self._execution_on_shares
        return as_html(self, None if execution is None else execution.jobs)

    def _on_shares(self) -> Execution:
        if self._execution_on_shares is None:
            # Past Keras' attribute tracking: this is no layer and no weight.
            object.__setattr__(self, "_execution_on_shares", Execution(self))
        standing = planned()
        if standing is None:
            return self._execution_on_shares
        if id(self) not in standing.copies:
            standing.copies[id(self)] = self._execution_on_shares.copy()
        return standing.copies[id(self)]

