-- Makes decisions, one after the other. Each counts hits: all of them, or none when one bucket refuses.
-- KEYS[i]  the bucket of hit i, over all decisions; on a Cluster all in one slot
-- ARGV     for each decision the number of its hits, then for each of these:
--          0 (window or period), hits, limit, time to live of a new key (ms); or
--          1 (GCRA), hits, limit (hits per window), window (µs), burst (hits); or
--          2 (sliding window), hits, limit, window (µs)
--          Hits of 0 ask without counting; below 0 they are given back, as far as there are. 8 is added to the first for
--          hits that are counted even when they are refused, and refuse nothing for the others.
-- Answers four integers for each hit of a decision: allowed (1 or 0), hits counted (GCRA: hits left, below 0 when there are
-- more than it holds), µs until reset, µs until a retry (both 0 for a window); or one text for a decision that can't be made.
-- A window's key is named by when it ends, and its value is its count. A GCRA bucket's is its theoretical arrival time, in
-- 1/32 µs since 2025: a whole number, which Redis keeps without memory of its own, and a double holds until 2034 (later it
-- loses a bit). A sliding window's is in sliding.go. These two go by Redis' own time.
local EPOCH, MAX_COUNT, MAX_WINDOW, SLOTS = 1735689600000000, 2^53, 2 * 366 * 86400 * 1000000, 16
local call, pcall, max, min, ceil, floor = redis.call, redis.pcall, math.max, math.min, math.ceil, math.floor
local format, byte, char = string.format, string.byte, string.char
local time       -- µs since 1970
local value = {} -- by key: what is stored, with the decisions made so far; false for nothing
local was = {}   -- by key: what Redis has
local kinds = {} -- by key: 0, 1 or 2
local ttl = {}   -- by key that is to be written: ms

local function now()
  if not time then
    local t = call('TIME')
    time = t[1] * 1000000 + t[2]
  end
  return time
end

-- read gives what is stored, or nil and what is wrong.
local function read(key, kind)
  local v = pcall('GET', key)
  if type(v) == 'table' then return nil, v.err end
  if kind ~= 2 then v = tonumber(v) or false end
  was[key], value[key], kinds[key] = v, v, kind
  return v
end

-- The three of them answer: whether the hit fits; then the hits counted or left, µs until reset, and µs until a retry; then
-- the first two once it is charged; then the value with it, and the time to live.
local function window(stored, hits, limit, life)
  local count = stored or 0
  local fits = hits < 0 or max(1, hits) <= limit - count
  local after = min(max(0, count + hits), MAX_COUNT)
  return fits, count, 0, 0, after, 0, after, life
end

local function gcra(stored, hits, limit, length, burst, beyond)
  local at, interval = now() - EPOCH, length / limit
  local slack, full = min(1, interval / 2), burst * interval
  local tat = max(at, stored and stored / 32 or at)
  local function left(t) return max(floor((at + full - t + slack) / interval), -MAX_COUNT) end
  local want = tat + max(1, hits) * interval
  local fits, retry = hits < 0 or want - full <= at + slack, 0
  if not fits then
    retry = want - full - at
    if hits > burst then retry = max(tat - at, interval) end -- never; no sooner than when it is full
  end
  local after = max(at, tat + hits * interval)
  if beyond then after = min(after, at + MAX_WINDOW) end
  local life = ceil((after - at) / 1000)
  return fits, left(tat), ceil(tat - at), ceil(retry), left(after), ceil(after - at), life > 0 and after * 32, life
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
  return format('%.0f', slot - first + 1) .. char(96 + width) .. table.concat(digits)
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

local words = {[0] = 4, 5, 4} -- of a hit, by kind

local answer, n = {}, 0
local k, a = 0, 1 -- the last key, the next argument
while ARGV[a] do
  local size, from, refused, wrong = tonumber(ARGV[a]), n, false, nil
  local taken, new, life = {}, {}, {}
  a = a + 1
  for i = 1, size do
    local key, kind = KEYS[k + i], tonumber(ARGV[a])
    local hits, limit, third = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
    local beyond = kind >= 8
    if beyond then kind = kind - 8 end
    local stored, err = new[key], nil
    if stored == nil then
      stored = value[key]
      if stored == nil then stored, err = read(key, kind) end
    end
    if err then
      wrong = wrong or err
    else
      local fits, count, reset, retry, charged, charged_reset, v, ms
      if kind == 0 then
        fits, count, reset, retry, charged, charged_reset, v, ms = window(stored, hits, limit, third)
      elseif kind == 1 then
        fits, count, reset, retry, charged, charged_reset, v, ms =
          gcra(stored, hits, limit, third, tonumber(ARGV[a + 4]), beyond)
      else
        fits, count, reset, retry, charged, charged_reset, v, ms = sliding(stored, hits, limit, third)
      end
      local ok, t = fits and 1 or 0, #taken
      if fits or beyond then
        if hits ~= 0 then new[key], life[key] = v, ms end
        taken[t + 1], taken[t + 2], taken[t + 3], taken[t + 4] = ok, charged, charged_reset, retry
      else
        refused = true
      end
      answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4] = ok, count, reset, retry
      n = n + 4
    end
    a = a + words[kind]
  end
  k = k + size
  if wrong then
    while n > from do
      answer[n] = nil
      n = n - 1
    end
    n = from + 1
    answer[n] = wrong
  elseif not refused then
    for i = 1, #taken do answer[from + i] = taken[i] end
    for key, v in pairs(new) do value[key], ttl[key] = v, life[key] end
  end
end

for key, ms in pairs(ttl) do
  local v, old, kind = value[key], was[key], kinds[key]
  if v == old then
    -- given back what was taken
  elseif not v then
    call('DEL', key)
  elseif kind == 0 and old then
    call('INCRBY', key, format('%.0f', v - old))
  elseif kind == 2 then
    call('SET', key, v, 'PX', format('%.0f', ms))
  elseif kind == 1 or v > 0 then
    call('SET', key, format('%.0f', v), 'PX', format('%.0f', ms))
  end
end
return answer
