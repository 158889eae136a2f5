-- idle: the session of a client process, for how many ms it has had no connection, and 1 if it has closed. KEYS: process, exp.
-- ARGV: process, timeout ms, living workers …
local p = redis.call('HMGET', KEYS[1], 's', 'x', 'seen')
if not p[1] or p[2] then return { '', 0, p[2] and 1 or 0 } end
local entered = false
for i = 3, #ARGV do
  if redis.call('HEXISTS', KEYS[1], 'k:' .. ARGV[i]) == 1 then return { p[1], 0, 0 } end
end
local since = tonumber(p[3] or '0')
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do entered = entered or string.sub(name, 1, 2) == 'k:' end
if entered then                                          -- its workers are dead: since the last postponement of its deadline
  local deadline = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or '0')
  since = math.max(since, deadline - ARGV[2] - LATE)
end
return { p[1], math.max(now - since, 1), 0 }
