-- end: ends a channel. KEYS: meta, log, state, names, own:WID [, process, pc: of an own channel].
-- ARGV: name, making, fence ('': any), reason, linger ms, topic, publish command, prefix of inboxes
local r = redis.call('HMGET', KEYS[1], 'e', 'c', 'i', 'x', 'K', 'r', 'o')
if not r[1] then
  redis.call('SREM', KEYS[5], ARGV[1])
  return { 'gone' }
end
if r[3] ~= ARGV[2] then return { 'ended', 'ended' } end                        -- a namesake
if r[2] then return { 'ended', r[2] } end
if ARGV[3] ~= '' and ARGV[3] ~= r[4] then return { 'fenced' } end
redis.call('HSET', KEYS[1], 'c', ARGV[4])
redis.call('HDEL', KEYS[1], 'o')
redis.call('PEXPIRE', KEYS[1], KEYS[6] and ARGV[5] or ENDED)
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('PEXPIRE', KEYS[3], ENDED)
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('SREM', KEYS[5], ARGV[1])
if KEYS[6] then pass(KEYS[6], KEYS[7], ARGV[1]) end
local frame = 'c' .. r[1] .. ' ' .. ARGV[4] .. ' ' .. ARGV[1]
tell(ARGV[7], frame, r[5], ARGV[6], r[6])
if OWN[r[5]] and r[7] and ARGV[8] .. r[7] ~= r[6] then redis.call(ARGV[7], ARGV[8] .. r[7], frame) end
return { 'ended', ARGV[4] }
