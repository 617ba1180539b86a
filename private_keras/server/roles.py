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


def require(name: str, roles: frozenset[str], call: str) -> None:
    """Raises `SecurityError` for a call that none of a party's roles allows."""
    allowed = CALLS.get(call)
    if allowed is not None and not allowed & roles:
        raise SecurityError(
            f"{name} has the roles {', '.join(sorted(roles))} in the cluster's description; {call} is for "
            f"{' or '.join(sorted(allowed))}"
        )
