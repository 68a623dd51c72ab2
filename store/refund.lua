-- Gives back hits that count.lua took, when another slot of a Cluster refused its part of the decision.
-- KEYS[i]  the bucket of hit i
-- ARGV     five for each hit: algorithm (0 fixed window, 1 GCRA), limit (hits per window), window (µs), hits to give
--          back, µs until reset as count.lua answered
-- Answers how many buckets took them back. A fixed window that ended since took its count with it.
local EPOCH = 1735689600000000
local time = redis.call('TIME')
local at = time[1] * 1000000 + time[2] - EPOCH
local done = 0
for i = 1, #KEYS do
  local a, key = 5 * i - 4, KEYS[i]
  local hits = tonumber(ARGV[a + 3])
  local value = tonumber(redis.call('GET', key))
  if value and ARGV[a] == '1' then
    local tat = value / 32 - hits * (tonumber(ARGV[a + 2]) / tonumber(ARGV[a + 1]))
    if tat <= at then
      redis.call('DEL', key)
    else
      local expiry = math.ceil((tat + EPOCH) / 1000)
      redis.call('SET', key, string.format('%.0f', tat * 32), 'PXAT', string.format('%.0f', expiry))
    end
    done = done + 1
  elseif value and redis.call('PTTL', key) * 1000 <= tonumber(ARGV[a + 4]) + 1000 then
    redis.call('DECRBY', key, string.format('%.0f', math.min(hits, value)))
    done = done + 1
  end
end
return {done}
