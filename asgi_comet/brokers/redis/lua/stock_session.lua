-- stock_session: a session whose list of client processes is lost stays no longer than one without any. KEYS: session, sp
if redis.call('PTTL', KEYS[1]) ~= -1 or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
return redis.call('PEXPIRE', KEYS[1], KEPT)
