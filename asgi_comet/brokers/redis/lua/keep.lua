-- keep: keeps a live channel that no worker has published on for a while. KEYS: meta, log.
-- ARGV: ttl of meta in ms ('': for ever), ttl of list in ms ('': it goes on as it is)
if redis.call('HEXISTS', KEYS[1], 'c') == 1 then return 0 end
if ARGV[2] ~= '' then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
if ARGV[1] == '' then return redis.call('EXISTS', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
