-- claim: a connection begins to read the own channels of a client process. KEYS: process, exp, lin, pc, then per channel meta, log.
-- ARGV: process, session, worker, timeout ms, reader ('WORKER:n'), inbox, the same reader as it was called before ('': a new one),
--   publish command, durable, fresh generation, fresh epoch, most messages, most bytes, between which times it came ('', '': now);
--   per channel: name, start, a, b
-- Returns per channel: page, kind, size, most bytes, max age, traits, k, a, ja, j; or 'unknown', 'past' if a channel of that name has ended
local no = refused(KEYS[1], ARGV[2])
if no then return no end
local p, again = redis.call('HMGET', KEYS[1], 'r', 'i', 'ra'), ARGV[7] ~= ''
local present = t[1] * 1000000 + t[2]                                           -- these times are in microseconds
local earliest, latest = tonumber(ARGV[14]) or present, tonumber(ARGV[15]) or present
if p[1] and p[1] ~= ARGV[5] and p[1] ~= ARGV[7] then
  local ra = tonumber(p[3] or '0')
  if again or ra > latest and ra <= present then return { 'replaced' } end                -- the other one came later; ra > present: the clock was set
  if p[2] ~= ARGV[6] then redis.call(ARGV[8], p[2], string.format('r%s %.0f', p[1], latest)) end  -- this worker knows its own connections
end
redis.call('HSET', KEYS[1], 'r', ARGV[5], 'i', ARGV[6], 'ra', string.format('%.0f', math.min(earliest, present)))
connect(KEYS[1], KEYS[2], ARGV[1], ARGV[3], ARGV[4])
local gen = lineage(KEYS[3], ARGV[10], ARGV[9])
local out, left, a = { 'ok' }, { bytes = tonumber(ARGV[13]) }, 16              -- one budget for all channels
for k = 5, #KEYS, 2 do
  local meta, log, start, offset = KEYS[k], KEYS[k + 1], ARGV[a + 1], ARGV[a + 3]
  local one, r = page(meta, log, 'own', gen, ARGV[11], start, ARGV[a + 2], offset, tonumber(ARGV[12]), left)
  if one[1] ~= 'unknown' then
    redis.call('HSET', meta, 'r', ARGV[6])
    local got = 0
    if one[1] == 'ok' and start == 'at' and not again then
      got = tonumber(offset)
      one[4] = acknowledge(meta, log, got)
    end
    out[#out + 1] = { one, r[9], r[14], r[15], r[10] or '', r[16],
      math.max(tonumber(r[17] or '0'), got), math.max(tonumber(r[11] or '0'), got), r[18] or 0, r[19] or 0 }
  elseif start == 'at' or start == 'next' then
    out[#out + 1] = redis.call('HEXISTS', KEYS[4], ':' .. ARGV[a]) == 1 and 'past' or 'unknown'
  else
    redis.call('HDEL', KEYS[4], ':' .. ARGV[a])                                  -- the reader begins anew
    out[#out + 1] = 'unknown'
  end
  a = a + 4
end
return out
