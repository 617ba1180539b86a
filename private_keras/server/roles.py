"""What a party of a cluster may do: roles in its description, and the calls that each role allows.

| role | may |
|---|---|
| owner | put data on the servers, save and name it, set its policy, delete it |
| analyst | prepare and run plans, share their inputs, keep and save results |
| receiver | fetch what others' jobs deliver to it |

Everybody who may use the cluster may ask who is there, inspect plans and read its own part of the audit log. A party
may have several roles. `server` says that a party operates one of the servers; it allows no call by itself: a server's
own certificate never calls as a client.
"""

from private_keras.errors import SecurityError

SERVER = "server"
OWNER = "owner"
ANALYST = "analyst"
RECEIVER = "receiver"
ROLES = frozenset({SERVER, OWNER, ANALYST, RECEIVER})
# Of parties in the talk's form, in `clients`, and of everybody where the description names nobody.
CLIENT = frozenset({OWNER, ANALYST, RECEIVER})

_EITHER = frozenset({OWNER, ANALYST})
# Who may call what; calls that are not listed are for everybody who may use the cluster.
CALLS = {
    "Upload": _EITHER,
    "Delete": _EITHER,
    "Save": _EITHER,
    "Commit": _EITHER,
    "Saved": _EITHER,
    "Forget": _EITHER,
    "Put": frozenset({OWNER}),
    "SetPolicy": frozenset({OWNER}),
    "Load": frozenset({ANALYST}),
    "Prepare": frozenset({ANALYST}),
    "Run": frozenset({ANALYST}),
    "RunShort": frozenset({ANALYST}),
    "Cancel": frozenset({ANALYST}),
    "Deliveries": frozenset({RECEIVER}),
    "Receive": frozenset({RECEIVER}),
}
# What roles are for, and what the calls above are, as whoever is refused would say it.
_FOR = {
    OWNER: "share data and models and say who may use them",
    ANALYST: "predict, evaluate and train",
    RECEIVER: "receive results that others send",
    SERVER: "operate a server, and call none",
}
_RUN = "predict, evaluate, train or reveal"
_SAID = {
    "Upload": "share anything",
    "Delete": "delete shares",
    "Save": "save shares",
    "Commit": "save shares",
    "Saved": "list named shares",
    "Forget": "delete named shares",
    "Put": "share data under a name",
    "SetPolicy": "let others use shares",
    "Load": "use named shares",
    "Prepare": _RUN,
    "Run": _RUN,
    "RunShort": _RUN,
    "Cancel": "cancel a job",
    "Deliveries": "receive results",
    "Receive": "receive results",
}


def require(name: str, roles: frozenset[str], call: str) -> None:
    """Raises `SecurityError` for a call that none of a party's roles allows: what it may do, and what to change."""
    allowed = CALLS.get(call)
    if allowed is not None and not allowed & roles:
        held = " and ".join(f"{role} ({_FOR[role]})" for role in sorted(roles))
        raise SecurityError(
            f"{name} may not {_SAID[call]}: its role in the cluster's description is {held}. If it should, add "
            f"{' or '.join(repr(role) for role in sorted(allowed))} to the roles of {name} in cluster.json on every "
            "server's host, and start the servers anew; or connect as a party that has the role"
        )
