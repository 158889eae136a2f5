-- sweep: names of channels that end once unused, and were not looked at for a while. KEYS: names. ARGV: while in ms, most
local names = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[2])
for _, name in ipairs(names) do redis.call('ZADD', KEYS[1], now, name) end
return names
