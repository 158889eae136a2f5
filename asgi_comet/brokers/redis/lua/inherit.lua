-- inherit: a channel of a dead worker is free; it ends if no other worker has its source.
-- KEYS: meta, log, state, names, own: of the dead worker [, process, pc: of an own channel]. ARGV: name, dead worker, linger ms, topic, publish command
redis.call('SREM', KEYS[5], ARGV[1])
local r = redis.call('HMGET', KEYS[1], 'e', 'o', 'c', 't', 'K', 'r')
if r[2] ~= ARGV[2] or r[3] then return 0 end
redis.call('HSET', KEYS[1], 'h', '0')
redis.call('HDEL', KEYS[1], 'o', 'x')
if string.find(r[4] or '', 's', 1, true) then
  redis.call('HSET', KEYS[1], 'c', 'failed')
  redis.call('PEXPIRE', KEYS[1], KEYS[6] and ARGV[3] or ENDED)
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  redis.call('PEXPIRE', KEYS[3], ENDED)
  redis.call('ZREM', KEYS[4], ARGV[1])
  if KEYS[6] then pass(KEYS[6], KEYS[7], ARGV[1]) end
  tell(ARGV[5], 'c' .. r[1] .. ' failed ' .. ARGV[1], r[5], ARGV[4], r[6])
else
  tell(ARGV[5], 'f0 ' .. ARGV[1], r[5], ARGV[4], r[6])
end
return 1
