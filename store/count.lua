-- Makes decisions, one after the other. Each counts hits: all of them, or none when one bucket refuses.
-- KEYS[i]  the bucket of hit i, over all decisions; on a Cluster all in one slot
-- ARGV[1]  numbers, packed by MessagePack: for each decision the number of its hits, then for each of these:
--          0 (window or period), hits, limit, time to live of a new key (ms); or
--          1 (GCRA), hits, limit (hits per window), window (µs), burst (hits); or
--          2 (sliding window), hits, limit, window (µs)
--          Hits of 0 ask without counting; below 0 they are given back, as far as there are. 8 is added to the first for
--          hits that are counted even when they are refused, and refuse nothing for the others.
-- Answers four integers for each hit: allowed (1 or 0), hits counted (GCRA: hits left, below 0 when there are more than it
-- holds), µs until reset, µs until a retry (both 0 for a window).
-- A window's key is named by when it ends, and its value is its count. A GCRA bucket's is its theoretical arrival time, in
-- 1/32 µs since 2025: a whole number, which Redis keeps without memory of its own, and a double holds until 2034 (later it
-- loses a bit). To set when a key ends costs more than to count: so a bucket's ends with the cell of 8.4 s that the time is
-- in, and is set anew when that is another one. A sliding window's is in sliding.go. These two go by Redis' own time. What
-- can't be read counts as nothing.
local EPOCH, MAX_COUNT, MAX_WINDOW, U32 = 1735689600000000, 2^53, 2 * 366 * 86400 * 1000000, 2^32
local PARTS, FULL_ENTRIES = 1024, 2200
local CELL = 2^28   -- 1/32 µs
local LINGER = 1000 -- ms that a key outlives its cell: Redis counts them from the start of the script, which may be a while ago
local call, max, min, ceil, floor = redis.call, math.max, math.min, math.ceil, math.floor
local sub, pack, number = string.sub, struct.pack, struct.unpack
local time       -- µs since 1970
local value = {} -- by key: what is stored, with the decisions made so far; false for nothing
local was = {}   -- by key: what Redis has
local kinds = {} -- by key that is to be written: 0, 1 or 2
local ttl = {}   -- the same: ms; not GCRA

local function now()
  if not time then
    local t = call('TIME')
    time = t[1] * 1000000 + t[2]
  end
  return time
end

-- The three of them answer: whether the hit fits; then the hits counted or left, µs until reset, and µs until a retry; then
-- the first two once it is charged; then the value with it, and the time to live.
local function window(stored, hits, limit, life)
  local count = tonumber(stored) or 0
  local fits = hits < 0 or max(1, hits) <= limit - count
  local after = min(max(0, count + hits), MAX_COUNT)
  return fits, count, 0, 0, after, 0, after, life
end

local function gcra(stored, hits, limit, length, burst, beyond)
  local at, interval = now() - EPOCH, length / limit
  local slack, full = min(1, interval / 2), burst * interval
  local tat = max(at, (stored or 0) / 32)
  local want = tat + max(1, hits) * interval
  local fits, retry = hits < 0 or want - full <= at + slack, 0
  if not fits then
    retry = want - full - at
    if hits > burst then retry = max(tat - at, interval) end -- never; no sooner than when it is full
  end
  local after = max(at, tat + hits * interval)
  if beyond then after = min(after, at + MAX_WINDOW) end
  return fits, max(floor((at + full - tat + slack) / interval), -MAX_COUNT), ceil(tat - at), ceil(retry),
    max(floor((at + full - after + slack) / interval), -MAX_COUNT), ceil(after - at),
    after > at and floor(after * 32 + 0.5), 0
end

-- write_gcra stores a value; old is the number that Redis has. To add to it keeps its time to live, and costs least.
local function write_gcra(key, v, old)
  local cell = floor(v / CELL)
  if old and cell <= floor(old / CELL) and type(redis.pcall('INCRBY', key, v - old)) == 'number' then return end
  call('PSETEX', key, ceil(((cell + 1) * CELL / 32 + EPOCH - now()) / 1000) + LINGER, v)
end

-- at and sum are those of the i-th entry of a sliding window's log; sum(log, 0) is what was counted before the first.
local function at(log, i) return (number('<I4', log, 8 * i - 3)) end
local function sum(log, i) return (number('<I4', log, 8 * i + 1)) end

-- later tells how much later one time of a log is than another, below 0 when it is earlier.
local function later(a, b)
  local n = (a - b) % U32
  return n < U32 / 2 and n or n - U32
end

-- first is the first of from to to that is as wanted, where those before it are not, and all after it are.
local function first(from, to, wanted)
  while from <= to do
    local mid = floor((from + to) / 2)
    if wanted(mid) then to = mid - 1 else from = mid + 1 end
  end
  return from
end

-- log_with is the log from its oldest-th entry to its newest-th, with hits counted at a time that isn't earlier than
-- these; and their time. In a part of the window, so many units wide, up to a part of the limit shares an entry.
local function log_with(log, oldest, newest, stamp, hits, width, limit)
  if newest < oldest then return pack('<I4I4I4', 0, stamp, hits), stamp end
  local last, total = at(log, newest), (sum(log, newest) + hits) % U32
  if later(last, stamp) > 0 then stamp = last end
  local full = limit > PARTS and FULL_ENTRIES or PARTS
  local shared = last == stamp or floor(last / width) == floor(stamp / width) and
    (newest - oldest + 1 >= full or (total - sum(log, newest - 1)) % U32 <= ceil(limit / PARTS))
  return sub(log, 8 * oldest - 7, shared and -9 or -1) .. pack('<I4I4', stamp, total), stamp
end

local function sliding(stored, hits, limit, length, beyond)
  local unit = ceil(length / 2^24)
  local log, oldest, newest = stored, 1, stored and #stored % 8 == 4 and (#stored - 4) / 8 or 0
  local tick, horizon = ceil(now() / unit), floor((now() - length) / unit)
  if newest > 0 and later(at(log, newest), tick) > ceil(length / unit) then newest = 0 end
  if newest > 0 and later(at(log, 1), horizon) <= 0 then
    oldest = first(2, newest, function(i) return later(at(log, i), horizon) > 0 end)
  end
  local before = newest >= oldest and sum(log, oldest - 1) or 0
  local function counted(i) return (sum(log, i) - before) % U32 end
  local function reaches(n) return first(oldest, newest, function(i) return counted(i) >= n end) end
  local function leaves(stamp) return (tick + later(stamp, tick)) * unit + length - now() end

  local count, reset, retry = 0, 0, 0
  if newest >= oldest then count, reset = counted(newest), leaves(at(log, newest)) end
  local fits = hits < 0 or max(1, hits) <= limit - count
  if not fits then
    retry = length -- hits above the limit never fit
    if max(1, hits) <= limit then retry = leaves(at(log, reaches(max(1, hits) - (limit - count)))) end
  end
  if hits == 0 or not (fits or beyond) then return fits, count, reset, retry, count, reset, stored, 0 end

  local after, stamp = max(0, min(count + hits, U32 - 1)), tick % U32
  if after == 0 then return fits, count, reset, retry, 0, 0, false, 0 end
  if hits > 0 then
    log, stamp = log_with(log, oldest, newest, stamp, after - count, floor(length / unit / PARTS), limit)
  else
    local i = reaches(after)
    log, stamp = sub(log, 8 * oldest - 7, 8 * i) .. pack('<I4', (before + after) % U32), at(log, i)
  end
  return fits, count, reset, retry, after, leaves(stamp), log, ceil(leaves(stamp) / 1000) + LINGER
end

local args = cmsgpack.unpack(ARGV[1])
for from = 1, #KEYS, 1000 do -- as many as a call may have arguments, by far
  local to = min(from + 999, #KEYS)
  local stored = call('MGET', unpack(KEYS, from, to))
  for i = from, to do
    value[KEYS[i]], was[KEYS[i]] = stored[i - from + 1], stored[i - from + 1]
  end
end

local answer, n = {}, 0
local k, a = 0, 1 -- the last key, the next argument
while args[a] do
  local size, from, refused = args[a], n, false
  local taken, before -- the answers with the charge; by key what the decision found
  if size > 1 then taken, before = {}, {} end
  a = a + 1
  for i = 1, size do
    k = k + 1
    local key, kind, hits, limit = KEYS[k], args[a], args[a + 1], args[a + 2]
    local beyond = kind >= 8
    if beyond then kind = kind - 8 end
    local stored = value[key]
    local fits, count, reset, retry, charged, charged_reset, v, ms
    if kind == 0 then
      fits, count, reset, retry, charged, charged_reset, v, ms = window(stored, hits, limit, args[a + 3])
    elseif kind == 1 then
      if type(stored) == 'string' then
        stored = tonumber(stored) or 0
        value[key], was[key] = stored, stored
      end
      fits, count, reset, retry, charged, charged_reset, v, ms =
        gcra(stored, hits, limit, args[a + 3], args[a + 4], beyond)
      a = a + 1
    else
      fits, count, reset, retry, charged, charged_reset, v, ms = sliding(stored, hits, limit, args[a + 3], beyond)
    end
    a = a + 4
    local ok, counts = fits and 1 or 0, fits or beyond
    if counts and hits ~= 0 then
      if before and before[key] == nil then before[key] = {stored, ttl[key]} end
      value[key], kinds[key], ttl[key] = v, kind, ms
    end
    refused = refused or not counts
    if not before then
      if counts then count, reset = charged, charged_reset end
    elseif counts then
      taken[n + 1 - from], taken[n + 2 - from], taken[n + 3 - from], taken[n + 4 - from] = ok, charged, charged_reset, retry
    end
    answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4] = ok, count, reset, retry
    n = n + 4
  end
  if before and refused then
    for key, b in pairs(before) do value[key], ttl[key] = b[1], b[2] end
  elseif before then
    for i = 1, #taken do answer[from + i] = taken[i] end
  end
end

for key, ms in pairs(ttl) do
  local v, old, kind = value[key], was[key], kinds[key]
  if v == old then
    -- given back what was taken
  elseif not v then
    call('DEL', key)
  elseif kind == 0 and tonumber(old) then
    if v ~= tonumber(old) then call('INCRBY', key, v - old) end
  elseif kind == 1 then
    write_gcra(key, v, old)
  elseif kind > 0 or v > 0 then
    call('PSETEX', key, ms, v)
  end
end
return answer
