-- hold: a worker keeps state of a client process. KEYS: process. ARGV: session, worker
local no = refused(KEYS[1], ARGV[1])
if no then return no end
redis.call('HSET', KEYS[1], 'w:' .. ARGV[2], now)
return { 'ok' }
