-- Counts hits: all of them, or none when one bucket refuses.
-- KEYS[i]  the bucket of hit i; on a Cluster all in one slot
-- ARGV     five for each hit: algorithm (0 fixed window, 1 GCRA), limit (hits per window), window (µs),
--          burst (hits; GCRA), hits (0 asks without counting)
-- Answers four integers for each hit: allowed (1 or 0), hits left, µs until reset, µs until a retry (0 when allowed).
-- A fixed window's value is its count, and the key ends with the window. A GCRA bucket's is its theoretical arrival
-- time, in 1/32 µs since 2025: a whole number, which Redis keeps without memory of its own, and a double holds until
-- 2034 (later it loses a bit). Redis' own time counts; TIME may be a little ahead of the time by which this script sees
-- keys expire, so a count is known to be of this window by when it ends.
local EPOCH = 1735689600000000
local call, max, min, ceil, floor = redis.call, math.max, math.min, math.ceil, math.floor
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local value -- by key, what the hits before left in it; nil when there is one hit

-- Both answer: allowed, hits left and µs until reset before the charge, the same after it, µs until a retry; then the
-- value to write and when it ends (ms), or no end to add to what is there.
local function fixed(key, limit, window, hits)
  local ends = now - now % window + window
  local count, expiry = value and value[key], nil
  if not count then
    count = tonumber(call('GET', key))
    if not count or math.abs(now + call('PTTL', key) * 1000 - ends) * 2 >= window then
      count, expiry = 0, ends / 1000
    end
  end
  local left, reset = max(0, limit - count), ends - now
  if max(1, hits) > left then
    return 0, left, reset, left, reset, reset
  end
  return 1, left, reset, left - hits, reset, 0, count + hits, expiry
end

local function gcra(key, limit, window, burst, hits)
  local at, interval = now - EPOCH, window / limit
  local slack, full = min(1, interval / 2), burst * interval
  local stored = value and value[key] or tonumber(call('GET', key))
  local tat = max(at, stored and stored / 32 or at)
  local left = min(max(floor((at + full - tat + slack) / interval), 0), burst)
  local want = tat + max(1, hits) * interval
  if want - full > at + slack then
    local retry = want - full - at
    if hits > burst then retry = max(tat - at, interval) end -- never; no sooner than when it is full
    local reset = ceil(tat - at)
    return 0, left, reset, left, reset, ceil(retry)
  end
  local after = tat + hits * interval
  local charged = min(max(floor((at + full - after + slack) / interval), 0), burst)
  return 1, left, ceil(tat - at), charged, ceil(after - at), 0, after * 32, ceil((after + EPOCH) / 1000)
end

local function count(i)
  local a = 5 * i - 4
  local limit, window, hits = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 4])
  if ARGV[a] == '1' then
    return hits, gcra(KEYS[i], limit, window, tonumber(ARGV[a + 3]), hits)
  end
  return hits, fixed(KEYS[i], limit, window, hits)
end

local function write(key, v, ends, hits)
  if ends then
    call('SET', key, string.format('%.0f', v), 'PXAT', string.format('%.0f', ends))
  else
    call('INCRBY', key, string.format('%.0f', hits))
  end
end

if #KEYS == 1 then
  local hits, allowed, _, _, left, reset, retry, v, ends = count(1)
  if allowed == 1 and hits > 0 then write(KEYS[1], v, ends, hits) end
  return {allowed, left, reset, retry}
end

value = {}
local expiry, added = {}, {}
local taken, before = {}, {} -- the answers with and without the charge
local refused = false
for i = 1, #KEYS do
  local key, to = KEYS[i], 4 * i - 3
  local hits, allowed, left, reset, charged, charged_reset, retry, v, ends = count(i)
  taken[to], taken[to + 1], taken[to + 2], taken[to + 3] = allowed, charged, charged_reset, retry
  before[to], before[to + 1], before[to + 2], before[to + 3] = allowed, left, reset, retry
  if allowed == 0 then
    refused = true
  elseif hits > 0 then
    value[key], expiry[key], added[key] = v, ends or expiry[key], (added[key] or 0) + hits
  end
end
if refused then return before end
for key, v in pairs(value) do
  write(key, v, expiry[key], added[key])
end
return taken
