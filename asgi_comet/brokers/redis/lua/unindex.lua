-- unindex: sessions are not the user's, unless they became so lately. KEYS: u. ARGV: how long ago at least in ms, sessions …
for i = 2, #ARGV do
  local since = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or '') or math.huge
  if since <= now - ARGV[1] then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 1
