-- Makes decisions, one after the other. Each counts hits: all of them, or none when one bucket refuses.
-- KEYS[i]  the bucket of hit i, over all decisions; on a Cluster all in one slot
-- ARGV     for each decision the number of its hits, then for each of these:
--          0 (window), hits, limit (hits), time to live of a new key (ms); or
--          1 (GCRA), hits, limit (hits per window), window (µs), burst (hits)
--          Hits of 0 ask without counting; below 0 they are given back, as far as there are. 8 is added to the first for
--          hits that are counted even when they are refused, and refuse no others.
-- Answers four integers for each hit of a decision: allowed (1 or 0), hits counted in the window (GCRA: hits left), µs until
-- reset, µs until a retry (both 0 for a window); or one text for a decision that can't be made.
-- A window's key is named by when it ends, and its value is its count. A GCRA bucket's is its theoretical arrival time, in
-- 1/32 µs since 2025: a whole number, which Redis keeps without memory of its own, and a double holds until 2034 (later it
-- loses a bit). GCRA goes by Redis' own time.
local EPOCH = 1735689600000000
local call, pcall, max, min, ceil, floor = redis.call, redis.pcall, math.max, math.min, math.ceil, math.floor
local format = string.format
local at         -- µs since EPOCH
local value = {} -- by key: what is stored, with the decisions made so far; false for nothing
local ends = {}  -- by key that is to be written: how to write it
local was = {}   -- by key: what Redis has

local function now()
  if not at then
    local time = call('TIME')
    at = time[1] * 1000000 + time[2] - EPOCH
  end
  return at
end

-- read gives what is stored, or nil and what is wrong.
local function read(key)
  local v = pcall('GET', key)
  if type(v) == 'table' then return nil, v.err end
  v = tonumber(v) or false
  was[key], value[key] = v, v
  return v
end

-- Both answer: whether the hit fits, then as the script answers without the charge and with it, and the value with it.
local function window(count, hits, limit)
  count = count or 0
  if hits < 0 then
    local after = max(0, count + hits)
    return true, count, 0, 0, after, 0, after
  end
  local fits = count + max(1, hits) <= limit
  return fits, count, 0, 0, count + hits, 0, count + hits
end

local function gcra(stored, hits, limit, length, burst)
  local at, interval = now(), length / limit
  local slack, full = min(1, interval / 2), burst * interval
  local tat = max(at, stored and stored / 32 or at)
  local left = min(max(floor((at + full - tat + slack) / interval), 0), burst)
  local want = tat + max(1, hits) * interval
  local fits, retry = hits < 0 or want - full <= at + slack, 0
  if not fits then
    retry = want - full - at
    if hits > burst then retry = max(tat - at, interval) end -- never; no sooner than when it is full
  end
  local after = max(at, tat + hits * interval)
  local charged = min(max(floor((at + full - after + slack) / interval), 0), burst)
  return fits, left, ceil(tat - at), ceil(retry), charged, ceil(after - at), after * 32
end

local answer, n = {}, 0
local k, a = 0, 1 -- the last key, the next argument
while ARGV[a] do
  local hits_of, first, refused, wrong = tonumber(ARGV[a]), n, false, nil
  local taken, new, keep = {}, {}, {}
  a = a + 1
  for i = 1, hits_of do
    local key = KEYS[k + i]
    local kind, hits, limit = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
    local beyond = kind >= 8
    if beyond then kind = kind - 8 end
    local stored, err = new[key], nil
    if stored == nil then
      stored = value[key]
      if stored == nil then stored, err = read(key) end
    end
    if err then
      wrong = wrong or err
      a = a + (kind == 0 and 4 or 5)
    else
      local fits, left, reset, retry, charged, charged_reset, v
      if kind == 0 then
        fits, left, reset, retry, charged, charged_reset, v = window(stored, hits, limit)
        keep[key] = tonumber(ARGV[a + 3])
        a = a + 4
      else
        fits, left, reset, retry, charged, charged_reset, v = gcra(stored, hits, limit, tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4]))
        keep[key] = false
        a = a + 5
      end
      local ok = fits and 1 or 0
      local t = 4 * i - 3
      if fits or beyond then
        if hits ~= 0 then new[key] = v end
        taken[t], taken[t + 1], taken[t + 2], taken[t + 3] = ok, charged, charged_reset, retry
      else
        refused = true
        taken[t], taken[t + 1], taken[t + 2], taken[t + 3] = ok, left, reset, retry
      end
      answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4] = ok, left, reset, retry
      n = n + 4
    end
  end
  k = k + hits_of
  if wrong then
    while n > first do
      answer[n] = nil
      n = n - 1
    end
    n = first + 1
    answer[n] = wrong
  elseif not refused then
    for i = 1, #taken do answer[first + i] = taken[i] end
    for key, v in pairs(new) do value[key], ends[key] = v, keep[key] end
  end
end

for key, ttl in pairs(ends) do
  local v = value[key]
  if ttl == false then
    if v <= now() * 32 then
      call('DEL', key)
    else
      call('SET', key, format('%.0f', v), 'PX', format('%.0f', ceil((v / 32 - now()) / 1000)))
    end
  elseif not was[key] then
    if v > 0 then call('SET', key, format('%.0f', v), 'PX', ttl) end
  elseif v ~= was[key] then
    call('INCRBY', key, format('%.0f', v - was[key]))
  end
end
return answer
