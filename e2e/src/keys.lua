-- Of each key its type and when it goes (Unix time in ms, -1 never); of streams groups, consumers and what is pending as well.
local function flat(value)
  if type(value) ~= 'table' then return tostring(value) end
  if value.ok then return value.ok end
  local parts = {}
  for i, part in ipairs(value) do parts[i] = flat(part) end
  return '[' .. table.concat(parts, ' ') .. ']'
end

local keys, lines = redis.call('keys', '*'), {}
table.sort(keys)
for _, key in ipairs(keys) do
  local kind = redis.call('type', key).ok
  local line = kind .. ' ' .. redis.call('pexpiretime', key) .. ' ' .. key
  if kind == 'stream' then
    line = line .. ' ' .. redis.call('xlen', key) .. ' ' .. flat(redis.call('xinfo', 'groups', key))
    for _, group in ipairs(redis.call('xinfo', 'groups', key)) do
      for _, pending in ipairs(redis.call('xpending', key, group[2], '-', '+', 1000)) do
        -- Not for how long it has been pending, which goes on.
        line = line .. ' ' .. flat({pending[1], pending[2], pending[4]})
      end
    end
  end
  lines[#lines + 1] = line
end
return lines
