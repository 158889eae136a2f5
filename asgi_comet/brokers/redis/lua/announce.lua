-- announce: Redis may have lost a client process of which a worker has connections or state.
-- KEYS: session, sp, process, exp, f. ARGV: process, session, user ('': none), '1' for the default process,
--   how many default processes there were, '1' if the session is kept, worker, '1' if connected, '1' if it keeps state,
--   timeout ms, for how many ms it is not connected, what had followed the session's id when the id was in use again ('': nothing)
local id, worker = ARGV[1], ARGV[7]
local p = redis.call('HMGET', KEYS[3], 's', 'x')
if p[2] then return { 'gone' } end
if p[1] and p[1] ~= ARGV[2] then return { 'moved', p[1] } end
if not p[1] then
  local _, heir = heir_of(KEYS[5])
  if heir and heir ~= ARGV[12] then return { 'moved', heir } end
  redis.call('HSET', KEYS[3], 's', ARGV[2], 'seen', now - ARGV[11])
  redis.call('ZADD', KEYS[2], now, id)
  if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'u', ARGV[3]) end
  if ARGV[6] == '1' then redis.call('HSET', KEYS[1], 'w', '1') end
  if ARGV[4] == '1' then redis.call('HSETNX', KEYS[1], 'd', id) end
  if tonumber(redis.call('HGET', KEYS[1], 'n') or '0') < tonumber(ARGV[5]) then redis.call('HSET', KEYS[1], 'n', ARGV[5]) end
  redis.call('PERSIST', KEYS[1])
  redis.call('ZADD', KEYS[4], now - ARGV[11] + ARGV[10], id)
end
if ARGV[8] == '1' then connect(KEYS[3], KEYS[4], id, worker, ARGV[10]) end
if ARGV[9] == '1' then redis.call('HSET', KEYS[3], 'w:' .. worker, now) end
return { 'ok' }
