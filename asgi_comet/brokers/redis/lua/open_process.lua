-- open_process. KEYS: session, sp, process, exp, f, closing [, idle process to close].
-- ARGV: process, session, most processes, timeout ms, '1' for the default process, idle process to close ('': none)
local id, most, timeout = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local p = redis.call('HMGET', KEYS[3], 's', 'x')
if p[2] then return { 'gone' } end
if p[1] then return p[1] == ARGV[2] and { 'ok', id } or { 'moved', p[1] } end  -- its own retry
local heir = heir_of(KEYS[5])
if heir then return { 'moved', heir } end
local default = ARGV[5] == '1' and redis.call('HGET', KEYS[1], 'd')
if default then return { 'ok', default } end                                   -- of another worker, at the same time
if redis.call('ZCARD', KEYS[2]) >= most then
  local all, longest, since = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES'), '', math.huge
  for i = 1, #all, 2 do
    local deadline = tonumber(redis.call('ZSCORE', KEYS[4], all[i]) or '0')
    local idle = math.max(tonumber(all[i + 1]), deadline - timeout)
    if deadline <= now + timeout and idle < since then longest, since = all[i], idle end
  end
  if longest == '' or longest ~= ARGV[6] then return { 'many', longest } end
  close(KEYS[7], KEYS[4], KEYS[6], longest)
  forget(KEYS[1], KEYS[2], longest, KEYS[7])
end
redis.call('HSET', KEYS[3], 's', ARGV[2], 'seen', now)
redis.call('ZADD', KEYS[2], now, id)
redis.call('ZADD', KEYS[4], now + math.min(FIRST, timeout), id)
redis.call('PERSIST', KEYS[1])
if ARGV[5] == '1' then
  redis.call('HSET', KEYS[1], 'd', id)
  redis.call('HINCRBY', KEYS[1], 'n', 1)
end
return { 'ok', id }
