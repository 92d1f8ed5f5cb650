-- The request of ../shared/bench/rivals.sh; wrk's figures come out as one line of JSON.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. (os.getenv("KEY") or "sk-test")
wrk.body = '{"model":"gpt-4o-mini","messages":[{"role":"system","content":"You are helpful."},{"role":"user","content":"Hello!"}],"max_tokens":64}'

-- With KEYS set, the keys of that file, one after the other.
local keys, next_key = {}, 0
if os.getenv("KEYS") then
  for key in io.lines(os.getenv("KEYS")) do keys[#keys + 1] = "Bearer " .. key end
  function request()
    next_key = next_key % #keys + 1
    wrk.headers["Authorization"] = keys[next_key]
    return wrk.format()
  end
end

-- With REQUESTS set, no more than that are sent, and all are answered before wrk stops.
local left = tonumber(os.getenv("REQUESTS"))
if left then
  function delay()
    left = left - 1
    return left < 0 and 3600000 or 0
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"p50_us":%d,"p99_us":%d,"bad_status":%d,"socket_errors":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
