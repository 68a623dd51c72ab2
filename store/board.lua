-- Writes to a board.
-- KEYS[1]  its hash: "revision" counts its changes, "sum" is that of all entries' digests, "floor" the last revision that
--          is not in KEYS[2] any more, and "=NAME" an entry: written (µs):expires (s, 0 never):until (s, 0 never):value
-- KEYS[2]  the names that changed of late, by the revision of their last change
-- ARGV[1]  put:    ARGV[2] name, [3] the version that the process knows (µs; 0 none), [4] expires (s; 0 never), [5] value,
--                  [6] entries at most
--          keep:   ARGV[2], [3], ... name and entry: those that Redis hasn't, or has only older
--          sweep:  ARGV[2], ... names: those whose time is over
--          settle: ARGV[2] the sum of what is there at revision ARGV[3]
-- Answers what it wrote before the value (put), or how many entries were. What changed is told to the channel named KEYS[1].
-- Of two entries of one version the one with the greater digest counts. Of one that ends sooner than the one before, HELD s pass before it is forgotten: by then every process knows.
local RECENT, LINGER, HELD, SUM = 10000, 60, 86400, 2^48
local hash, changes, call = KEYS[1], KEYS[2], redis.call
local time = call('TIME')
local seconds, now = tonumber(time[1]), time[1] * 1000000 + time[2]
local state = call('HMGET', hash, 'revision', 'sum', 'floor')
local revision, sum, floor = tonumber(state[1]) or 0, tonumber(state[2]) or 0, tonumber(state[3]) or 0
local before, answer = revision, 0
if call('ZCARD', changes) == 0 then floor = revision end

local function text(n) return string.format('%.0f', n) end

local function digest(name, entry)
  return tonumber(string.sub(redis.sha1hex(name .. '\0' .. entry), 1, 12), 16)
end

local function parse(entry)
  if not entry then return nil end
  local written, expires, til = string.match(entry, '^(%d+):(%d+):(%d+):')
  return tonumber(written), tonumber(expires), tonumber(til)
end

local function write(name, old, entry)
  revision = revision + 1
  if old then sum = (sum - digest(name, old)) % SUM end
  if entry then
    sum = (sum + digest(name, entry)) % SUM
    call('HSET', hash, '=' .. name, entry)
  else
    call('HDEL', hash, '=' .. name)
  end
  call('ZADD', changes, revision, name)
end

if ARGV[1] == 'put' then
  local name, expires = ARGV[2], tonumber(ARGV[4])
  local old = call('HGET', hash, '=' .. name)
  if not old and call('HLEN', hash) - 3 >= tonumber(ARGV[6]) then return redis.error_reply('FULL the board holds no more') end
  local written, ends, til = parse(old)
  local version = math.max(now, (written or 0) + 1, tonumber(ARGV[3]) + 1)
  local keep = 0
  if expires > 0 then
    local sooner = tonumber(ARGV[3]) > 0 or expires <= seconds -- than what another process may know
    if written then sooner = ends == 0 or ends > expires end
    keep = math.max(expires + LINGER, til or 0, sooner and seconds + HELD or 0)
  end
  answer = text(version) .. ':' .. text(expires) .. ':' .. text(keep) .. ':'
  write(name, old, answer .. ARGV[5])
elseif ARGV[1] == 'keep' then
  for i = 2, #ARGV, 2 do
    local name, entry = ARGV[i], ARGV[i + 1]
    local old = call('HGET', hash, '=' .. name)
    local written, _, til = parse(entry)
    local has = parse(old)
    if (til == 0 or til > seconds) and (not has or has < written or has == written and digest(name, old) < digest(name, entry)) then
      write(name, old, entry)
      answer = answer + 1
    end
  end
elseif ARGV[1] == 'sweep' then
  for i = 2, #ARGV do
    local old = call('HGET', hash, '=' .. ARGV[i])
    local written, _, til = parse(old)
    if written and til > 0 and til <= seconds then
      write(ARGV[i], old, nil)
      answer = answer + 1
    end
  end
elseif revision == tonumber(ARGV[3]) then
  call('HSET', hash, 'revision', text(revision), 'sum', ARGV[2], 'floor', text(floor))
end

if revision == before then return answer end
local extra = call('ZCARD', changes) - RECENT
if extra > 0 then
  floor = tonumber(call('ZRANGE', changes, extra - 1, extra - 1, 'WITHSCORES')[2])
  call('ZREMRANGEBYRANK', changes, 0, extra - 1)
end
call('HSET', hash, 'revision', text(revision), 'sum', text(sum), 'floor', text(floor))
call('PUBLISH', hash, text(revision))
return answer
