-- follow. KEYS: meta, log, lin. ARGV: 'site' | 'own', durable, fresh generation, fresh epoch, start, a, b,
--   most messages, most bytes, '1' on behalf of a client
local gen = lineage(KEYS[3], ARGV[3], ARGV[2])
local out = page(KEYS[1], KEYS[2], ARGV[1], gen, ARGV[4], ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8]), { bytes = tonumber(ARGV[9]) })
if out[1] ~= 'unknown' and ARGV[10] == '1' and tonumber(redis.call('HGET', KEYS[1], 'u') or '0') < now - 2000 then
  redis.call('HSET', KEYS[1], 'u', now)
end
return out                                 -- status, epoch, top, first, closed, owner, guard, now in ms if its messages have times, making [, after, rows]
