-- Writes to an archive.
-- KEYS[1]  the number of its head   KEYS[2]  hash of entries, by number   KEYS[3]  hash of blobs, by name
-- ARGV[1]  append: ARGV[2] the head that it takes the place of (0 none), [3] number, [4] value, [5] the lowest number that is
--                  kept, [6], ... names of blobs that have to be there
--          drop:   ARGV[2] the head, [3], ... names of blobs
-- Answers 1, or 0 when the head is another, or -1 when a blob is missing. A new head is told to the channel named KEYS[1].
local call = redis.call
if (tonumber(call('GET', KEYS[1])) or 0) ~= tonumber(ARGV[2]) then return 0 end

if ARGV[1] == 'drop' then
  for i = 3, #ARGV do call('HDEL', KEYS[3], ARGV[i]) end
  return 1
end

for i = 6, #ARGV do
  if call('HEXISTS', KEYS[3], ARGV[i]) == 0 then return -1 end
end
call('HSET', KEYS[2], ARGV[3], ARGV[4])
for _, number in ipairs(call('HKEYS', KEYS[2])) do
  local n = tonumber(number)
  if n < tonumber(ARGV[5]) or n > tonumber(ARGV[3]) then call('HDEL', KEYS[2], number) end
end
call('SET', KEYS[1], ARGV[3])
call('PUBLISH', KEYS[1], ARGV[3])
return 1
