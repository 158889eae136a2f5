-- bury: client processes forget dead workers. KEYS: processes …. ARGV: when the living workers were counted, living workers …
local alive = {}
for i = 2, #ARGV do alive[ARGV[i]] = true end
for _, p in ipairs(KEYS) do bury(p, tonumber(ARGV[1]), alive) end
return #KEYS
