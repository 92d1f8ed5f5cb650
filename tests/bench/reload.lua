-- Asks the model `marked`, and counts which version answered. PAUSED of the requests (0 to 1) wait for a
-- millisecond. Once the file STOP_FILE is there, nothing more is sent, and what is under way is answered.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"model":"marked","messages":[{"role":"user","content":"hello"}]}'

local paused = tonumber(os.getenv("PAUSED")) or 0
local stop = os.getenv("STOP_FILE")
local sent, stopped = 0, false
seen = { tick = 0, tock = 0, other = 0 }

function setup(thread)
  worker = thread
end

function delay()
  if not stopped and stop and sent % 512 == 0 then
    local file = io.open(stop)
    if file then
      file:close()
      stopped = true
    end
  end
  if stopped then return 3600000 end
  sent = sent + 1
  return math.random() < paused and 1 or 0
end

function response(status, headers, body)
  local who = body:match('"content":"(%a+)"')
  if status == 200 and (who == "tick" or who == "tock") then
    seen[who] = seen[who] + 1
  else
    seen.other = seen.other + 1
  end
end

function done(summary, latency)
  local errors = summary.errors
  local function count(who) return worker:get("seen")[who] end
  io.write(string.format(
    '{"requests":%d,"seconds":%.3f,"tick":%d,"tock":%d,"other":%d,"bad_status":%d,"socket_errors":%d,"p99_us":%d}\n',
    summary.requests, summary.duration / 1e6, count("tick"), count("tock"), count("other"),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout, latency:percentile(99)))
end
