-- mark: what readers of own channels were sent, what they have, and what they lack. KEYS: per channel meta, log.
-- ARGV: per channel epoch, offset sent ('': none), offset acknowledged ('': none),
--   offset acknowledged when it was told `full` ('': not), offset that the reader goes on after
-- Returns per channel: 1 if the offsets are known, else 0; or the error, if a key is not ours
local function mark(meta, log, epoch, sent, got, after, upto)
  local r = redis.call('HMGET', meta, 'e', 's', 'f', 'b', 'K', 'A', 'k')
  local top = tonumber(r[2] or '0')
  if r[1] ~= epoch or not OWN[r[5]] or math.max(sent or 0, got or 0, upto or 0) > top then return 0 end
  local m = { top = top, first = tonumber(r[3]), bytes = tonumber(r[4]), age = tonumber(r[6]) }
  held(log, m)
  redis.call('HSET', meta, 'f', m.first, 'b', m.bytes, 'k', math.max(tonumber(r[7] or '0'), sent or 0))
  if upto then skip(meta, after, upto) end
  if got then acknowledge(meta, log, got) end
  return 1
end
local out, a = {}, 1
for k = 1, #KEYS, 2 do
  local ok, known = pcall(mark, KEYS[k], KEYS[k + 1], ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]),
    tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4]))
  out[#out + 1] = ok and known or type(known) == 'table' and known.err or tostring(known)
  a = a + 5
end
return out
