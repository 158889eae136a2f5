-- attended: the keys of a client process; nil from data of another generation. KEYS: pk, lin. ARGV: generation, fresh generation, durable
if lineage(KEYS[2], ARGV[2], ARGV[3]) ~= ARGV[1] then return false end
return redis.call('SMEMBERS', KEYS[1])
