"""What training adds to private models."""
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
from keras.src.utils.backend_utils import in_tf_graph

from private_keras import converter
from private_keras.cluster import current
from private_keras.cluster.results import Address
from private_keras.errors import InputError, UnsupportedError
from private_keras.models.plain import plain_model
from private_keras.models.training import checkpoint, reveal, secret
from private_keras.models.training.compiled import check_compiled, checked_optimizer
from private_keras.models.training.evaluate import evaluate, on_batch
from private_keras.models.training.fit import fit
from private_keras.models.training.jobs import Jobs
from private_keras.models.training.options import checked_seed, options
from private_keras.server.policy import Policy


class TrainableModel:
    """Mixin for Keras models: `fit` and `evaluate` on shares, in weights that stay on the servers until `reveal`.

    Keras' signatures, defaults and behaviour, unless said otherwise. Data, labels, weights, gradients and optimiser
    state are shared; servers know the plan, learning rates, seeds of dropout, and which rows a step takes.
    """

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, loss_weights: Any = None, metrics: Any = None,
        weighted_metrics: Any = None, run_eagerly: bool = False, steps_per_execution: int = 1,
        jit_compile: Any = "auto", auto_scale_loss: bool = True,
    ) -> None:
        """As in Keras.

        Args:
            optimizer, loss, loss_weights, metrics, weighted_metrics: as in Keras.
            run_eagerly: True is refused by `fit` and `evaluate`: steps run on servers.
            steps_per_execution: callbacks that act at batches act after so many; see `fit`.
            jit_compile: without effect on shares: servers run the plan in any case.
            auto_scale_loss: as in Keras; fixed point needs no loss scale.

        Raises:
            UnsupportedError: an optimizer or loss that cannot run on shares.
            ValueError: from Keras, for arguments that it does not know.
        """
        super().compile(
            optimizer=checked_optimizer(optimizer), loss=loss, loss_weights=loss_weights, metrics=metrics,
            weighted_metrics=weighted_metrics, run_eagerly=run_eagerly, steps_per_execution=steps_per_execution,
            jit_compile=jit_compile, auto_scale_loss=auto_scale_loss,
        )  # fmt: skip
        check_compiled(self)

    def compile_from_config(self, config: dict) -> None:
        """As in Keras."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, epochs: int = 1,
        verbose: str | int = "auto", callbacks: Any = None, validation_split: float = 0.0, validation_data: Any = None,
        shuffle: bool | str = True, class_weight: Mapping[int, float] | None = None, sample_weight: Any = None,
        initial_epoch: int = 0, steps_per_epoch: int | None = None, validation_steps: int | None = None,
        validation_batch_size: int | None = None, validation_freq: int | Sequence[int] = 1, *,
        open_metrics: Literal["epoch"] | int = "epoch", checkpoint_every: int | None = None,
        checkpoint: str | None = None, resume: bool = False, seed: int | None = None,
    ) -> keras.callbacks.History:
        """Trains on shares. Arguments up to `validation_freq`, and the result, as in Keras.

        Args:
            x, y, sample_weight: arrays, lists and dicts of arrays, `tf.data.Dataset`, `keras.utils.PyDataset` or a
                generator of batches. Arrays are shared once; batches in pieces of 64 MB. One weight for each sample.
                Or secret tensors (`private_keras.share`), also mixed with arrays of as many rows: of those, shapes are
                checked, and not whether classes and indices exist, or targets suit the loss.
            callbacks: Keras callbacks. One that acts at batches makes each batch a job of its own.
            shuffle: True: another public order in each epoch.
            open_metrics: when loss and metrics are opened: "epoch", at the end of each, or every so many steps besides.
                Never for a sample.
            checkpoint_every: save every so many steps of an epoch, beside its end.
            checkpoint: save under this name on the servers' disks, as shares, at the end of each epoch.
            resume: go on from that checkpoint if it is there: with the same data and arguments the result is that of a
                run that was not interrupted. Callbacks begin anew.
            seed: of the public shuffle, and of dropout and noise; None draws one.

        Returns:
            Keras' History.

        Raises:
            UnsupportedError: something that cannot run on shares; before anything is shared.
            InputError: data or arguments that do not fit; before anything is shared.
            DivergenceError: values left the range of fixed point. The model is as before the epoch.
            ClusterError: servers that cannot be reached or were lost; says how to go on.

        Opens: results of metrics, and one bit each time: whether values left the range. Cost: `cost`, `plan`.
        """
        given = options(dict(
            batch_size=batch_size, epochs=epochs, shuffle=shuffle, class_weight=class_weight,
            initial_epoch=initial_epoch, steps_per_epoch=steps_per_epoch, validation_steps=validation_steps,
            validation_batch_size=validation_batch_size, validation_freq=validation_freq, open_metrics=open_metrics,
            checkpoint_every=checkpoint_every, checkpoint=checkpoint, resume=resume, seed=seed,
        ))  # fmt: skip
        jobs = self._jobs()
        jobs.fitting = True
        try:
            return fit(
                self, jobs, x, y, sample_weight, validation_data, validation_split, verbose, callbacks, given
            )
        finally:
            jobs.fitting = False

    def evaluate(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, verbose: str | int = "auto",
        sample_weight: Any = None, steps: int | None = None, callbacks: Any = None, return_dict: bool = False, *,
        to: str | None = None, name: str | None = None, **kwargs: Any,
    ) -> Any:
        """Loss and metrics on shares; as in Keras. Opens the results of metrics and nothing else.

        Args:
            to: the party that the results are opened to, instead of this client: it receives a dict by name of the
                metric with `private_keras.receive("this-client/name")`.
            name: what they are called there.

        Returns:
            As in Keras; with `to`, a `Delivery`.

        Raises:
            UnsupportedError, InputError: before anything is shared.
            ClusterError: servers that cannot be reached or were lost.
        """
        if kwargs:
            raise InputError(f"evaluate: expected Keras' arguments. Received: {sorted(kwargs)}")
        if name is not None and to is None:
            raise InputError("evaluate: name goes with to, for somebody else to receive the results under")
        address = None if to is None else Address(to, name)
        logs = evaluate(self, self._jobs(), x, y, sample_weight, batch_size, verbose, steps, callbacks, address)
        if address is not None:
            return logs
        return logs if return_dict else self._flatten_metrics_in_order(logs)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False, *, seed: int | None = None,
    ) -> Any:
        """One step on one batch; as in Keras. Opens the batch's loss and metrics. Errors as in `fit`.

        Args:
            seed: of dropout and noise; None draws one.
        """
        logs = on_batch(self, self._jobs(), True, x, y, sample_weight, class_weight, checked_seed(seed))
        return logs if return_dict else self._flatten_metrics_in_order(logs)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """Loss and metrics of one batch; as in Keras. Errors as in `evaluate`."""
        logs = on_batch(self, self._jobs(), False, x, y, sample_weight, None, 0)
        return logs if return_dict else self._flatten_metrics_in_order(logs)

    def reset_metrics(self) -> None:
        """As in Keras."""
        self._jobs().reset_metrics()

    # --- weights -----------------------------------------------------------------------------------------------------
    def reveal(self) -> keras.Model:
        """A plain `keras.Model` with the weights and optimiser state that are on the servers, opened to this client.

        Raises:
            UnsupportedError: a subclass of `Model`.
            HandleNotFound: they were lost with the servers.
        """
        plain = plain_model(self)
        with reveal.in_the_clear(self, self._jobs()):
            plain.set_weights(keras.Model.get_weights(self))
            if self.compiled:
                plain.compile_from_config(self.get_compile_config())
                if self.optimizer.built:
                    plain.optimizer.build(plain.trainable_variables)
                    pairs = zip(plain.optimizer.variables, self.optimizer.variables, strict=True)
                    for theirs, ours in pairs:
                        theirs.assign(ours)
        return plain

    def get_weights(self) -> list:
        """The weights as arrays, opened to this client; while `fit` runs, as a `SecretWeights` list, unopened."""
        if self._jobs().fitting:
            return secret.taken(self, self._jobs().holdings)
        return reveal.weights(self, self._jobs())

    def set_weights(self, weights: Sequence[Any]) -> None:
        """As in Keras; also takes what `get_weights` gave while `fit` ran."""
        if any(isinstance(item, secret.SecretWeight) for item in weights):
            secret.put(self, self._jobs().holdings, weights)
        else:
            super().set_weights(weights)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """As in Keras, after the file was checked. The servers' weights are replaced.

        Raises:
            FileError: missing, damaged or hostile file.
        """
        converter.check_weights(filepath)
        super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)

    def save(self, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
        """Opens weights and optimiser state to this client and saves them as plain Keras does; see `reveal`.

        The file opens in Keras without this package, but for layers that Keras does not have and for subclassed models.
        """
        try:
            plain = self.reveal()
        except UnsupportedError:
            with reveal.in_the_clear(self, self._jobs()):
                super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)
            return
        plain.save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    def save_weights(self, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None) -> None:
        """Opens weights and optimiser state to this client and saves them as in Keras."""
        with reveal.in_the_clear(self, self._jobs()):
            super().save_weights(filepath, overwrite=overwrite, max_shard_size=max_shard_size)

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Opens the weights to this client and exports a plain model, as in Keras."""
        self.reveal().export(filepath, *args, **kwargs)

    def __reduce__(self) -> tuple:
        """Copies and pickles hold the weights, opened to this client."""
        with reveal.in_the_clear(self, self._jobs()):
            return super().__reduce__()

    def save_shares(self, name: str, policy: Policy | None = None) -> None:
        """Saves weights and optimiser state on the servers' disks under a name, as shares: nobody learns anything.

        `private_keras.models.load_shares(name)` gives the model again. What servers, and those who may use it, can
        read: layers, shapes, how it is compiled, and the number of steps it was trained for.

        Args:
            policy: `private_keras.Policy` of who else may use the model, and how; nobody by default. They call
                `private_keras.models.load_shares("this-client/name")`.

        Raises:
            InputError: a name that is none.
            ClusterError: a server without room or a directory for it.
        """
        if policy is not None and not isinstance(policy, Policy):
            raise InputError(f"save_shares: policy: expected pk.Policy(...). Received: {type(policy).__name__}")
        checkpoint.save(self, self._jobs(), current(), name, policy=policy or Policy())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As in Keras, in the clear, on this machine; not with weights that are on the servers.

        Raises:
            UnsupportedError: training has changed the weights, and nobody knows them.
        """
        leaves = keras.tree.flatten((args, kwargs))
        symbolic = in_tf_graph() or any(isinstance(leaf, keras.KerasTensor) for leaf in leaves)
        if not symbolic and self._execution_on_shares is not None and self._jobs().holdings.secret:
            raise UnsupportedError(
                f"model {self.name!r}: calling a model computes in the clear, but its weights are on the servers. Call "
                "predict; reveal() gives a plain model to the owner of the weights."
            )
        return super().__call__(*args, **kwargs)

    def _jobs(self) -> Jobs:
        return self._on_shares().jobs
