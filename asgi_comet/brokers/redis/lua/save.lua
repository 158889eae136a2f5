-- save: the state of the registration protocol, if a connection still reads. KEYS: process, reg. ARGV: reader ('WORKER:n'), state
local p = redis.call('HMGET', KEYS[1], 'r', 'x')
if p[1] ~= ARGV[1] or p[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
return 1
