-- void: a batch that was sent before, and that Redis refuses now, is never stored under its number. KEYS: b:WID. ARGV: number.
-- Returns the reply to the batch; '' if it was not stored.
local no, done = tonumber(ARGV[1]), redis.call('HMGET', KEYS[1], 'n', 'r')
local n = tonumber(done[1] or '0')
if no == n then return done[2] end
if no < n then return 'stale' end
redis.call('HSET', KEYS[1], 'n', no, 'r', '')
redis.call('PEXPIRE', KEYS[1], 600000)
return ''
