-- The requests of a measurement, and its figures as one line of JSON. See load.py.
local file = os.getenv("LOAD_BODY")
if file then
    local handle = assert(io.open(file, "rb"))
    wrk.method = "POST"
    wrk.body = handle:read("*a")
    handle:close()
    wrk.headers["Content-Type"] = "application/json"
end

function done(summary, latency)
    local errors = summary.errors
    local form = '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "status": %d, "socket": %d, "timeout": %d}'
    local socket = errors.connect + errors.read + errors.write
    local p50, p99 = latency:percentile(50), latency:percentile(99)
    print(string.format(
        "FIGURES " .. form,
        summary.requests, summary.duration, p50, p99, errors.status, socket, errors.timeout
    ))
end
