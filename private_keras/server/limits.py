"""What one server accepts. The only place where these numbers are written."""

MIB = 1 << 20

CHUNK_BYTES = MIB  # of material and results in one message
MESSAGE_BYTES = 4 * MIB  # largest message of the control plane
ID_BYTES = 16  # of handles and job ids
MAX_QUEUED = 1000  # jobs that an operator may let wait
MAX_LOOP_STEPS = 10_000_000  # of one job
MAX_PLANS = 64  # prepared and kept
PLANS_BYTES = 512 * MIB  # text of all plans that are kept, but for the last one; in memory they take several times that
MAX_HANDLES = 200_000  # of all clients together
MAX_ITEMS = 10_000  # of stock made ahead, of all clients together
MAX_ITEMS_EACH = 2_500  # of one client
MAX_DELIVERIES = 10_000  # results that wait for receivers other than the caller, of all clients together
MAX_DELIVERIES_EACH = 2_500  # of one client
DELIVERY_SECONDS = 7 * 24 * 3600.0  # they wait at most
REFUSALS = 100  # of one client that are logged in an hour
AUDIT_OUTPUTS = 32  # of a job that its entry in the audit log lists
REMEMBERED_JOBS = 100_000  # ids that are refused a second time
STORE_BYTES = 16 << 30  # shares of all clients together
STORAGE_BYTES = 256 << 30  # saved shares of all clients together, on disk
OWNER_STORAGE_BYTES = 64 << 30  # of one client
MAX_SAVED = 10_000  # files of saved shares
OWNER_MAX_SAVED = 5_000  # of one client
RESIDENT_BYTES = MIB  # of a saved tensor that is read when it is loaded; a larger one stays on disk until it is used
CACHE_BYTES = 64 * MIB  # of opened chunks of files
SAVED_ELEMENTS = 1 << 31  # of one saved tensor, which no job takes whole if it has more than plan/limits.py says
ABOUT_BYTES = MIB  # of a client's own words in it
MAX_SECONDS = 24 * 3600.0  # longest deadline of a call
SETUP_SECONDS = 10.0  # for the handshake of a new lane
ACCEPT_SECONDS = 0.1  # after a connection that could not be accepted
DIAL_SECONDS = 5.0  # for reaching a peer
PROGRESS_SECONDS = 0.05  # between two reports of a loop
JOIN_SECONDS = 30.0  # for all servers of a job to arrive
IDLE_LANES = 32  # kept open to each peer
CALLERS_BESIDE = 64  # lanes accepted at once beyond two for each job
DETAIL_CHARACTERS = 2000  # of an error's message
