-- visit: a request names a session, and a client process. KEYS: session, f, sp [, process]
local s = redis.call('HMGET', KEYS[1], 'u', 'd', 'n', 'w')
local p = KEYS[4] and redis.call('HMGET', KEYS[4], 's', 'x') or {}
local heir, followed = heir_of(KEYS[2])
return { heir or '', s[1] or '', s[2] or '', tonumber(s[3] or '0'), s[4] and 1 or 0, p[1] or '', p[2] and 1 or 0,
  redis.call('ZRANGE', KEYS[3], 0, -1), followed or '' }
