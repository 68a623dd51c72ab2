-- Tells what changed on a board since a revision.
-- KEYS[1]  its hash, KEYS[2] the names that changed of late, as in board.lua
-- ARGV[1]  the revision, ARGV[2] names at most
-- Answers revision and sum of the board, the revision that what follows reaches to (-1: what changed isn't known any more),
-- then names and their entries, false for one that is gone.
local state = redis.call('HMGET', KEYS[1], 'revision', 'sum', 'floor')
local revision, since = tonumber(state[1]) or 0, tonumber(ARGV[1])
local answer = {state[1] or '0', state[2] or '0', ARGV[1]}
if since == revision then return answer end
local names = {}
if since < revision and since >= (tonumber(state[3]) or 0) then
  names = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
end
answer[3] = names[#names] or '-1'
for i = 1, #names, 2 do
  answer[#answer + 1] = names[i]
  answer[#answer + 1] = redis.call('HGET', KEYS[1], '=' .. names[i])
end
return answer
