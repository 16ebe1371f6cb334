-- wrk's script: cycles through a file of tokens. Arguments: template, token file, index of the first token.
-- Every request is built before the clock starts; what is left for each is an index and a table look-up.

local requests, count, index

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

function init(args)
  local before, after = read(args[1]):match("^(.-)@TOKEN@(.*)$")
  requests, count = {}, 0
  for token in io.lines(args[2]) do
    count = count + 1
    local number = string.format("%032x", count)
    requests[count] = before .. token .. after:gsub("@NUMBER@", number)
  end
  index = tonumber(args[3])
  io.write(string.format("PREPARED %.3f\n", os.clock()))
end

function request()
  index = index + 1
  if index > count then index = 1 end
  return requests[index]
end

-- wrk counts statuses over 399 by itself; a response() hook would cost more than the request.
function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "duration_us": %d, "denied": %d, "socket_errors": %d, "p50_us": %d, "p99_us": %d, '
      .. '"max_us": %d, "cpu_s": %.3f}\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99), latency.max, os.clock()))
end
