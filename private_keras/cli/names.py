"""`private-keras names` and `private-keras approve`: named shares, and which plans others may run on them."""

import argparse
import warnings
from dataclasses import fields
from pathlib import Path

from private_keras.cli.inspect import read_plan
from private_keras.cli.named import seen_path
from private_keras.cluster import Cluster, connect
from private_keras.cluster.audit import read_seen
from private_keras.cluster.named import as_table
from private_keras.errors import InputError
from private_keras.server.policy import DIGEST, Policy


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the commands."""
    listing = commands.add_parser(
        "names", help="list named shares", description="Lists your own named shares and their policies, and those of "
        "others that you may use."
    )  # fmt: skip
    _cluster(listing)
    listing.set_defaults(command=_names)
    approving = commands.add_parser(
        "approve", help="allow plans on your named shares",
        description="Adds digests of plans to the policy of named shares of yours: whoever the policy lets use them "
        "may run these plans, and open their results to whom the policy names. Look at them before: private-keras "
        "inspect.",
    )  # fmt: skip
    approving.add_argument("name", help="of shares of yours")
    approving.add_argument(
        "plans", nargs="+", metavar="plan", help="a digest, sha256: and 64 hex digits, or a plan's JSON file"
    )
    approving.add_argument("--revoke", action="store_true", help="take them out of the policy instead")
    _cluster(approving)
    approving.set_defaults(command=_approve)


def _cluster(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, required=True, help="the cluster's description, cluster.json")
    command.add_argument("--identity", help="your name, for a cluster over TLS")


def _check_logs(cluster: Cluster, given: argparse.Namespace) -> None:
    """Warns of servers whose log is not what it was when `private-keras audit` read it."""
    for fault in cluster.broken_logs(read_seen(seen_path(given))):
        warnings.warn(f"{fault}. Its storage may have been put back to an older copy, with policies of then; see "
                      "private-keras audit", stacklevel=2)


def _names(given: argparse.Namespace) -> int:
    with connect(given.config, identity=given.identity) as cluster:
        _check_logs(cluster, given)
        print(f"Own:\n{as_table(cluster.names())}\n\nOf others:\n{as_table(cluster.names(others=True))}")
    return 0


def _approve(given: argparse.Namespace) -> int:
    digests = {_digest(plan) for plan in given.plans}
    with connect(given.config, identity=given.identity) as cluster:
        _check_logs(cluster, given)
        own = cluster.own_name(given.name)
        found = [named for named in cluster.names() if named.name == own]
        if not found:
            raise InputError(f"you have no shares under the name {given.name!r}; see private-keras names")
        if not found[0].agreed:
            # What one of them says may be what was taken back long ago.
            raise InputError(f"the servers have different policies of {own!r}: set it whole with pk.set_policy, which "
                             "sets it on all; private-keras audit says what was changed when")
        policy = found[0].policy or Policy()
        plans = set(policy.plans) - digests if given.revoke else set(policy.plans) | digests
        changed = {item.name: getattr(policy, item.name) for item in fields(Policy)} | {"plans": sorted(plans)}
        cluster.set_policy(own, Policy(**changed))
        print(f"{found[0]}: {Policy(**changed).to_json()}")
        if not policy.use:
            print("its policy lets nobody use it yet: pk.set_policy(name, pk.Policy(use=[...], ...)) in Python")
    return 0


def _digest(plan: str) -> str:
    """Of a plan that is named by its digest or by a file."""
    if DIGEST.fullmatch(plan):
        return plan
    if not Path(plan).is_file():
        raise InputError(f"expected a digest, sha256: and 64 hex digits, or a plan's file. Received: {plan!r}")
    return f"sha256:{read_plan(Path(plan)).digest}"
