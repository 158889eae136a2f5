-- listen: a client process listens on a key. KEYS: process, pk, pc, meta of the notifier's channel.
-- ARGV: process, NOTIFIER␟KEY, name of the channel, publish command, prefix of inboxes, '1' if it did so before and Redis may have lost it
local p, c = redis.call('HMGET', KEYS[1], 's', 'x'), redis.call('HMGET', KEYS[4], 'e', 'c')
if not p[1] or p[2] then return 'closed' end
if c[2] or (not c[1] and (ARGV[6] == '' or is_past(KEYS[3], ARGV[3]))) then return 'ended' end
redis.call('SREM', KEYS[2], SEPARATOR .. ARGV[2])
if redis.call('SADD', KEYS[2], ARGV[2]) == 1 then
  report(ARGV[4], ARGV[5], KEYS[1], 'l' .. ARGV[1] .. ' ' .. ARGV[2])
end
return 'ok'
