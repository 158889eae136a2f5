-- unlisten: a client process listens on a key no more; the set of the key is to be told next. KEYS: process, pk.
-- ARGV: process, NOTIFIER␟KEY, publish command, prefix of inboxes
if redis.call('SREM', KEYS[2], ARGV[2]) == 0 then return 0 end
redis.call('SADD', KEYS[2], SEPARATOR .. ARGV[2])
report(ARGV[3], ARGV[4], KEYS[1], 'u' .. ARGV[1] .. ' ' .. ARGV[2])
return 1
