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
local EPOCH, MAX_COUNT, MAX_WINDOW, SLOTS = 1735689600000000, 2^53, 2 * 366 * 86400 * 1000000, 16
local CELL = 2^28   -- 1/32 µs
local LINGER = 1000 -- ms that a key outlives its cell: Redis counts them from the start of the script, which may be a while ago
local call, max, min, ceil, floor = redis.call, math.max, math.min, math.ceil, math.floor
local byte, char = string.byte, string.char
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

-- unpack_slots gives a sliding window as it is now: the slot of now, and the counts of it and of those before it.
local function unpack_slots(stored, length)
  local slot = floor(now() / length) * SLOTS + floor(now() % length * SLOTS / length)
  local counts = {}
  for k = 1, SLOTS + 1 do counts[k] = 0 end
  if not stored then return slot, counts end
  local newest, width, digits = string.match(stored, '^(%d+)([a-i])([0-o]*)$')
  newest = tonumber(newest)
  width = width and byte(width) - 96
  if not newest or newest - slot > SLOTS or #digits % width > 0 then return slot, counts end
  slot = max(slot, newest)
  local k, p = slot - newest + 1, 1
  while k <= SLOTS + 1 and p <= #digits do
    for d = p, p + width - 1 do counts[k] = counts[k] * 64 + (byte(digits, d) - 48) end
    k, p = k + 1, p + width
  end
  return slot, counts
end

local function pack_slots(slot, counts, first, last)
  local width, digits = 1, {}
  for k = first, last do
    while counts[k] >= 64 ^ width do width = width + 1 end
  end
  for k = first, last do
    for d = width - 1, 0, -1 do
      digits[#digits + 1] = char(48 + floor(counts[k] / 64 ^ d) % 64)
    end
  end
  return string.format('%.0f', slot - first + 1) .. char(96 + width) .. table.concat(digits)
end

-- begins is when a slot begins, and leaves when the hits leave that are in place k of those up to slot.
local function begins(slot, length)
  return floor(slot / SLOTS) * length + ceil(slot % SLOTS * length / SLOTS)
end

local function leaves(slot, k, length) return begins(slot - k + 1 + SLOTS + 1, length) end

local function span(counts)
  local first, last, sum
  for k = 1, SLOTS + 1 do
    if counts[k] > 0 then first, last, sum = first or k, k, (sum or 0) + counts[k] end
  end
  return first, last, sum or 0
end

local function sliding(stored, hits, limit, length)
  local slot, counts = unpack_slots(stored, length)
  local first, last, count = span(counts)
  local reset = first and max(0, leaves(slot, first, length) - now()) or 0
  local fits, retry = hits < 0 or max(1, hits) <= limit - count, 0
  if not fits then
    retry = length -- hits above the limit never fit
    local more, k = max(1, hits) - (limit - count), SLOTS + 1
    if max(1, hits) <= limit then
      while k > 1 and counts[k] < more do
        more, k = more - counts[k], k - 1
      end
      retry = leaves(slot, k, length) - now()
    end
  end
  if hits == 0 then return fits, count, reset, retry, count, reset, stored, 0 end
  if hits > 0 then
    counts[1] = counts[1] + max(0, min(hits, MAX_COUNT - count))
  else
    for k = 1, SLOTS + 1 do
      local back = min(-hits, counts[k])
      counts[k], hits = counts[k] - back, hits + back
    end
  end
  local after
  first, last, after = span(counts)
  if not first then return fits, count, reset, retry, 0, 0, false, 0 end
  local left = max(0, leaves(slot, first, length) - now())
  return fits, count, reset, retry, after, left, pack_slots(slot, counts, first, last), max(1, ceil(left / 1000))
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
      fits, count, reset, retry, charged, charged_reset, v, ms = sliding(stored, hits, limit, args[a + 3])
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
