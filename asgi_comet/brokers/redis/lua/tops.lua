-- tops: where logs stand. KEYS: lin, then one record per channel. ARGV: durable, fresh generation
local out = { lineage(KEYS[1], ARGV[2], ARGV[1]) }
for k = 2, #KEYS do
  local r = redis.call('HMGET', KEYS[k], 'e', 's', 'l', 'c', 'o', 'i')
  for i = 1, 6 do r[i] = r[i] or '' end
  out[k] = r
end
return out
