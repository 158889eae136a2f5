-- close: phase one of closing a client process; answers the same until phase two is done.
-- KEYS: process, sp, exp, closing, session, reg, pc, pk. ARGV: process, session, '1' if only when its deadline is over,
--   worker, '1' if it does what another worker has not finished
local p = redis.call('HMGET', KEYS[1], 's', 'x')
local listed = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not p[1] and not p[2] then                                                  -- the record is lost
  if not listed and redis.call('EXISTS', KEYS[6], KEYS[7], KEYS[8]) == 0 then
    redis.call('ZREM', KEYS[3], ARGV[1])
    redis.call('ZREM', KEYS[4], ARGV[1])
    return { 'gone' }
  end
  p[1] = ARGV[2]
end
if p[2] then
  if listed then forget(KEYS[5], KEYS[2], ARGV[1], KEYS[1]) end                -- it was lost, and closed by one that did not know the session
  if not redis.call('ZSCORE', KEYS[4], ARGV[1]) then return { 'gone' } end
else
  if p[1] ~= ARGV[2] then return { 'moved', p[1] } end
  if ARGV[3] == '1' and tonumber(redis.call('ZSCORE', KEYS[3], ARGV[1]) or '0') > now then return { 'alive' } end
  if listed then redis.call('HSET', KEYS[1], 's', ARGV[2]) end                 -- else the session of a lost record is not known
  close(KEYS[1], KEYS[3], KEYS[4], ARGV[1])
  forget(KEYS[5], KEYS[2], ARGV[1], KEYS[1])
end
redis.call('DEL', KEYS[6])
if ARGV[5] == '1' then redis.call('HSET', KEYS[1], 'b', ARGV[4]) else redis.call('HSETNX', KEYS[1], 'b', ARGV[4]) end
local workers, seen = {}, {}
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  local worker = string.match(name, '^[kw]:(.*)$')
  if worker and not seen[worker] then seen[worker] = true; workers[#workers + 1] = worker end
end
local of = redis.call('HMGET', KEYS[1], 's', 'u', 'w', 'b')
return { 'closed', workers, redis.call('HGETALL', KEYS[7]), redis.call('SMEMBERS', KEYS[8]), of[1] or '', of[2] or '', of[3] == '1' and 1 or 0,
  of[4] == ARGV[4] and 1 or 0 }
